"""What a shim may import is a list in the core: all else fails when it is linked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from wasmtime import wat2wasm

from tests.escape.evil import allow_list
from wali_core import _bridge
from wali_core._errors import ModuleError
from wali_core._link import ShimLink
from wali_core._runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.escape.evil import EvilHost

LETTERS = {"i": "i32", "I": "i64"}


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    """A runtime of the real core."""
    with Runtime(cache=False) as made:
        yield made


def link(runtime: Runtime, text: str) -> None:
    """Link a shim that consists of this import."""
    module = runtime._modules.compile(bytes(wat2wasm(f"(module {text})")), "a shim")
    ShimLink(module).close()


def function(module: str, name: str, parameters: str, result: str) -> str:
    """An import of a function, in WebAssembly's text format."""
    types = "".join(f" (param {LETTERS[letter]})" for letter in parameters)
    types += f" (result {LETTERS[result]})" if result else ""
    return f'(import "{module}" "{name}" (func{types}))'


LISTED = {
    "wali": """
        SYS_openat2 SYS_openat SYS_close SYS_dup3 SYS_lseek SYS_fcntl SYS_ioctl SYS_fstat
        SYS_newfstatat SYS_utimensat SYS_mkdirat SYS_unlinkat SYS_renameat2 SYS_linkat SYS_symlinkat
        SYS_readlinkat SYS_getdents64 SYS_ftruncate SYS_fallocate SYS_fadvise SYS_fsync
        SYS_fdatasync SYS_ppoll SYS_clock_gettime SYS_clock_getres SYS_accept4
        SYS_recvfrom SYS_shutdown SYS_getrandom SYS_sched_yield __proc_exit
    """,
    "wali_guest": "SYS_readv SYS_writev SYS_preadv SYS_pwritev SYS_pwritev2 SYS_getrandom",
    "guest": "copy_in copy_out store_u32 store_u64 store_time check suspend",
}


def test_list_is_no_longer_than_it_was() -> None:
    """A call that is added to the list is added here when it has been attacked in this folder."""
    expected = {(module, name) for module, names in LISTED.items() for name in names.split()}

    assert set(allow_list()) <= expected


def test_evil_shim_imports_the_whole_list(evil_host: EvilHost) -> None:
    """It has whatever a shim can have."""
    imports = {(item.module, item.name) for item in evil_host.module.imports}

    assert imports == set(allow_list())


@pytest.mark.parametrize(("module", "name"), sorted(allow_list()))
def test_listed_call_links(runtime: Runtime, module: str, name: str) -> None:
    """What is refused below is refused for what it is, and not because nothing links."""
    link(runtime, function(module, name, *allow_list()[module, name]))


REFUSED_CALLS = re.findall(
    r"\w+",
    """
    open openat3 creat socket connect bind listen sendmsg recvmsg socketpair execve execveat
    fork vfork clone clone3 mmap munmap mprotect mremap brk kill tkill tgkill ptrace
    process_vm_readv process_vm_writev pidfd_getfd pidfd_open kcmp userfaultfd io_uring_setup
    io_uring_enter io_uring_register memfd_create open_by_handle_at name_to_handle_at chroot
    pivot_root mount umount2 setns unshare chdir fchdir prctl seccomp bpf perf_event_open
    keyctl rt_sigaction rt_sigprocmask rt_sigreturn setitimer setuid setgid stat lstat fstatat
    statx access faccessat chmod fchmod fchmodat chown fchown fchownat mkdir rmdir unlink
    rename renameat link symlink readlink utimes futimesat utime setxattr fsetxattr read write
    pread64 pwrite64 preadv2 dup dup2 pipe pipe2 epoll_create1 epoll_ctl epoll_wait poll
    select pselect6 eventfd2 exit exit_group wait4 futex set_robust_list shmat sendfile splice
    copy_file_range truncate mknod mknodat quotactl reboot swapon init_module acct
    settimeofday clock_settime adjtimex getpid nanosleep gettimeofday getrlimit prlimit64
    sysinfo
    """,
)


@pytest.mark.parametrize("name", REFUSED_CALLS)
def test_unlisted_call_does_not_link(runtime: Runtime, name: str) -> None:
    """Calls that a WALI guest may have, and calls that nobody has, are not for shims."""
    row = _bridge.core.calls.get(("wali", f"SYS_{name}"))
    types = (row.parameters.decode(), "I") if row else ("iii", "I")

    for module in ("wali", "wali_guest", "guest", "wasi_snapshot_preview1", "env"):
        with pytest.raises(ModuleError, match=f"SYS_{name}, which a shim may not have"):
            link(runtime, function(module, f"SYS_{name}", *types))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("wali_guest", "SYS_openat2"),
        ("wali_guest", "SYS_fstat"),
        ("wali_guest", "__proc_exit"),
        ("wali_guest", "copy_in"),
        ("wali", "SYS_readv"),
        ("wali", "SYS_writev"),
        ("wali", "copy_in"),
        ("guest", "SYS_getrandom"),
        ("guest", "__proc_exit"),
        ("WALI", "SYS_close"),
        ("wali ", "SYS_close"),
        ("wali\\00", "SYS_close"),
        ("", "SYS_close"),
        ("wali", "close"),
        ("wali", "SYS_CLOSE"),
        ("wali", "SYS_close "),
        ("wali", "SYS_close\\00"),
        ("wali", ""),
        ("wali", "wali_denied"),
        ("guest", "memory"),
        ("wasi_snapshot_preview1", "fd_write"),
        ("wasi_unstable", "path_open"),
        ("wasi:filesystem/types@0.2.0", "open-at"),
    ],
)
def test_list_is_of_exact_names(runtime: Runtime, module: str, name: str) -> None:
    """Not another import module's call, not by another spelling, not by an alias."""
    with pytest.raises(ModuleError, match="which a shim may not have"):
        link(runtime, function(module, name, "iii", "I"))


@pytest.mark.parametrize(("module", "name"), sorted(allow_list()))
def test_wrong_type_does_not_link(runtime: Runtime, module: str, name: str) -> None:
    """A call of another type would read arguments that are not there."""
    parameters, result = allow_list()[module, name]
    other = {"i": "I", "I": "i", "": "i"}[result]
    wrong = [
        function(module, name, parameters + "i", result),
        function(module, name, parameters[:-1] or "I", result),
        function(module, name, parameters.swapcase() or "ii", result),
        function(module, name, parameters, other),
        function(module, name, parameters, "i").replace("(result i32)", "(result i32 i64)"),
    ]
    for text in wrong:
        with pytest.raises(ModuleError, match="with another type than"):
            link(runtime, text)


def test_call_without_arguments_needs_its_result(runtime: Runtime) -> None:
    """The result is written to where the arguments were: without either, it would go astray."""
    with pytest.raises(ModuleError, match="with another type than"):
        link(runtime, function("wali", "SYS_sched_yield", "", ""))


@pytest.mark.parametrize(
    "text",
    [
        '(import "wali" "SYS_close" (global i64))',
        '(import "wali" "SYS_close" (memory 1))',
        '(import "wali" "SYS_close" (table 1 funcref))',
        '(import "guest" "copy_in" (global (mut i32)))',
    ],
)
def test_only_functions_are_on_the_list(runtime: Runtime, text: str) -> None:
    """A memory, table or global of a listed name is no call."""
    with pytest.raises(ModuleError, match="which a shim may not have"):
        link(runtime, text)


@pytest.mark.parametrize(
    "text",
    [
        '(import "wali" "memory" (memory 1))',
        '(import "guest" "memory" (memory 1))',
        '(import "wali_guest" "memory" (memory 1 65536))',
        '(import "env" "memory" (memory 1 2 shared))',
    ],
)
def test_no_memory_can_be_imported(runtime: Runtime, text: str) -> None:
    """The guest's memory is there through calls only, never as a memory."""
    with pytest.raises(ModuleError, match="which a shim may not have"):
        link(runtime, text)


def test_a_gate_answers_for_the_call(evil_shim: Path) -> None:
    """A call that is held back never reaches its thunk."""
    with Runtime(cache=False) as runtime:
        module = runtime._modules.compile(evil_shim.read_bytes(), "the evil shim")
        link = ShimLink(module, gate={"SYS_unlinkat": 1})

        assert set(link.denials) == {"SYS_unlinkat"}
        link.close()
