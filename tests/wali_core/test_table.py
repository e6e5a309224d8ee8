"""Tests of wali_core._table, and of what the generator makes of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from wali.spec.abi import TypeRegistry
from wali.spec.syscalls import SYSCALLS, Syscall, SyscallArg

from wali_core import _bridge as bridge
from wali_core import _table as table
from wali_core.native import compile as compiler
from wali_core.native import generate

if TYPE_CHECKING:
    from pathlib import Path

CALLS = {call.name: call for call in table.CALLS}

# Where the kernel's own name for a call differs from WALI's.
NAMED_OTHERWISE = {"fadvise": "fadvise64"}

SERVED = {"plain", "waits", "makes", "moves", "body", "waits/body", "bodies", "host", "planned"}
SERVED |= {"plain/program"}
FOR_SHIMS = {"plain", "plain/program", "body", "waits/body", "bodies"}

# `systemd-analyze syscall-filter` lists them; only groups that a policy can name sensibly.
GROUPS = {
    "@basic-io",
    "@chown",
    "@default",
    "@file-system",
    "@io-event",
    "@ipc",
    "@memlock",
    "@mount",
    "@network-io",
    "@process",
    "@resources",
    "@setuid",
    "@signal",
    "@sync",
    "@timer",
}

KIND = re.compile(
    r"fd!?|dirfd!?|path\??|stat|name|target|at|zero|exchange|clock|mode|flags|cloexec|message|"
    r"int|uint|ptr|long|mem:(?P<length>\d)|(?:mask|set):(?P<mask>\d)|mem\[(?P<size>\d+)\]"
)

# What upstream's builds of lua and sqlite3 import.
LUA_AND_SQLITE = """
    access brk chdir chmod chown clock_gettime clock_nanosleep close connect dup dup2 dup3 execve
    exit exit_group fchdir fchmod fchown fcntl fdatasync fstat ftruncate futex futimesat getcwd
    getdents64 geteuid getgid getpid getrlimit getrusage gettimeofday getuid ioctl lseek lstat mkdir
    mmap mprotect mremap munmap nanosleep newfstatat open pipe pipe2 pread64 prlimit64 pwrite64 read
    readlink readv rename rmdir rt_sigaction rt_sigprocmask sched_getaffinity sched_setscheduler
    sendmsg set_robust_list set_tid_address setgid setpgid setsid setuid socket stat symlink sysinfo
    tkill unlink utimensat utimes wait4 write writev
"""


# What the kernel fills or reads, where WALI's type is the C library's and larger.
KERNEL_SIZES = {"rt_sigprocmask": 8}


def specified(name: str) -> Syscall | None:
    """Return a call of WALI's specification, if its arguments are there."""
    call = SYSCALLS.get(name)
    return call if call is not None and (call.args or call.implemented) else None


def wasm_type(argument: SyscallArg) -> str:
    """Return the letter for the Wasm type of one of WALI's argument types."""
    if argument.is_ptr():
        return "i"
    return {4: "i", 8: "I"}[TypeRegistry.resolve_size(argument)]


def kinds(name: str) -> list[re.Match[str]]:
    """Return the kinds of a call's arguments, each of which must be a known one."""
    found = [KIND.fullmatch(kind) for kind in CALLS[name].arguments.split()]
    assert all(found), CALLS[name].arguments
    return [match for match in found if match]


def test_names_are_unique() -> None:
    """No call has two lines."""
    assert len(CALLS) == len(table.CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_types_are_those_of_wali(name: str) -> None:
    """A call has the argument types of WALI's specification, or is marked as ours."""
    call = CALLS[name]
    spec = specified(name)

    assert call.ours == (spec is None)
    if spec is not None:
        expected = "".join(map(wasm_type, spec.args_reduce()))
        assert table.signature(call.arguments) == expected


@pytest.mark.parametrize("name", CALLS)
def test_numbers_are_those_of_wali(name: str) -> None:
    """A call has the kernel's numbers on both processors."""
    spec = SYSCALLS[name]
    aarch64 = spec.nrs.arm64 if spec.nrs.arm64 >= 0 else None

    assert (CALLS[name].x86_64, CALLS[name].aarch64) == (spec.nrs.x86_64, aarch64)


@pytest.mark.parametrize("name", table.INTERNAL)
def test_internal_numbers_are_the_kernels(name: str) -> None:
    """What the core calls for itself has the kernel's numbers, too."""
    spec = SYSCALLS[name]

    assert table.INTERNAL[name] == (spec.nrs.x86_64, spec.nrs.arm64)


@pytest.mark.parametrize("name", CALLS)
def test_buffers_are_as_large_as_the_structs(name: str) -> None:
    """A buffer of a fixed size has the size of WALI's struct, or of two for a pair of times."""
    spec = specified(name)
    if spec is None:
        return
    for argument, kind in zip(spec.args, kinds(name), strict=True):
        if kind["size"]:
            pair = 2 if name == "utimensat" else 1
            size = TypeRegistry.resolve_size(argument.removesuffix("*"))
            of_the_kernel = KERNEL_SIZES.get(name, pair * size)
            assert int(kind["size"]) == of_the_kernel, argument


def test_lengths_are_integers() -> None:
    """The length of a buffer is another argument, of an unsigned type."""
    for name in CALLS:
        found = kinds(name)
        lengths = [found[int(kind["length"])][0] for kind in found if kind["length"]]
        assert set(lengths) <= {"uint"}, name


def test_groups_are_systemds() -> None:
    """A group is one of systemd's names."""
    assert {call.group for call in table.CALLS} <= GROUPS


@pytest.mark.parametrize("name", CALLS)
def test_servers_exist(name: str) -> None:
    """A call is served in one of the known ways; one made from another names one that is not."""
    call = CALLS[name]
    if call.served in SERVED or call.served == "= 0":
        return
    match = re.fullmatch(r"(?:direct/)?= (\w+)\((.*)\)", call.served)
    assert match
    maker = CALLS[match[1]]
    assert maker.served in SERVED - {"planned"}
    assert len(list(filter(None, match[2].split(", ")))) == len(maker.arguments.split())
    assert maker.name != name
    used = {int(number) for number in re.findall(r"\$(\d)", match[2])}
    assert used <= set(range(len(call.arguments.split())))


def test_plain_thunks_have_no_pointer_of_unknown_size() -> None:
    """The generator is never asked to pass on a pointer that only a written body can check."""
    plain = [call for call in table.CALLS if call.served in {"plain", "waits", "makes", "moves"}]

    assert not [call.name for call in plain if "ptr" in call.arguments.split()]


def test_shims_have_only_what_is_served() -> None:
    """Of the shim's import modules there are two, and neither offers what is not there yet."""
    for call in table.CALLS:
        assert call.shim in {"", "own", "guest", "own guest"}, call.name
        assert not call.shim or call.served in FOR_SHIMS, call.name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("execve", "starts programs"),
        ("fchmod", "changes metadata through read-only descriptors"),
        ("fchownat", "changes owners"),
        ("fork", "is not even in the table"),
        ("kill", "is not even in the table"),
        ("mmap", "moves the engine's memory"),
        ("open", "takes paths from the working directory"),
        ("prlimit64", "names other processes"),
        ("read", "is served by readv"),
        ("socket", "makes new authority"),
        ("tkill", "sends signals"),
    ],
)
def test_shims_never_have(name: str, why: str) -> None:
    """What a shim has no use for is not on its list."""
    assert name not in CALLS or not CALLS[name].shim, f"{name} {why}"


def test_what_lua_and_sqlite_import_is_there() -> None:
    """Every call that upstream's lua and sqlite3 import has a line."""
    assert set(LUA_AND_SQLITE.split()) <= set(CALLS)


# --- what is made of it ---------------------------------------------------------------------------


def generated(out: Path, arch: str) -> str:
    """Return the generated thunks."""
    generate.generate(compiler.TABLE, out, arch)
    return (out / "thunks.gen.c").read_text()


@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_every_line_becomes_a_row(arch: str, tmp_path: Path) -> None:
    """The generated list has a row for each line of the table, on every processor."""
    text = generated(tmp_path, arch)

    rows = re.findall(r'^    \{"(\w+)", "(\w+)", "(\w*)"', text, re.MULTILINE)
    assert rows == [
        *(("wali", f"SYS_{call.name}", table.signature(call.arguments)) for call in table.CALLS),
        *((row[0], row[1], table.signature(row[2])) for row in table.AUXILIARY),
    ]


@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_numbers_are_generated_for_the_processor(arch: str, tmp_path: Path) -> None:
    """The generated header numbers exactly the calls that the processor has."""
    generated(tmp_path, arch)

    text = (tmp_path / "numbers.gen.h").read_text()
    numbers = dict(re.findall(r"#define NR_(\w+) (\d+)", text))
    ours = {name: str(getattr(call, arch)) for name, call in CALLS.items()}
    column = list(compiler.ARCHITECTURES).index(arch)
    internal = {name: str(pair[column]) for name, pair in table.INTERNAL.items()}
    assert numbers == {n: v for n, v in (ours | internal).items() if v != "None"}


@pytest.mark.slow
@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_core_compiles(arch: str, tmp_path: Path) -> None:
    """The thunks of every processor compile without a warning, and are in the object's list."""
    core = compiler.build_core(tmp_path / "core.so", arch=arch)

    if arch == compiler.host_arch():
        assert bridge.Core(str(core)).calls.keys() == bridge.core.calls.keys()


@pytest.mark.parametrize("name", CALLS)
def test_built_core_offers_what_the_table_says(name: str) -> None:
    """The installed core was built from this table: types, group and who may have the call."""
    call = CALLS[name]

    row = bridge.core.calls["wali", f"SYS_{name}"]

    assert row.parameters.decode() == table.signature(call.arguments)
    assert row.result == b"I"
    assert row.group.decode() == call.group
    assert bool(row.native) == (call.served != "host")
    assert bool(row.capable) == ("own" in call.shim.split())
    assert bool(row.capable_guest) == ("guest" in call.shim.split())


def test_served_otherwise_is_refused(tmp_path: Path) -> None:
    """What the generator cannot read stops the build, with the call's name."""
    text = compiler.TABLE.read_text().replace('"= openat(AT_FDCWD, $0, $1, $2)"', '"= openat("')
    broken = tmp_path / "_table.py"
    broken.write_text(text)

    with pytest.raises(ValueError, match="open: cannot read"):
        generate.generate(broken, tmp_path, "x86_64")
