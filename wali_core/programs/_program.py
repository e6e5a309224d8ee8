"""A WALI program: a module that is a Linux process.

It has its process for itself, which ``wali run`` is: its memory is mapped, its working directory is
the process's, fork makes another, and what ends it ends the process.  A trusted program may share
the embedder's process instead (``isolation="shared"``), without all that.
"""

from __future__ import annotations

import ctypes
import os
import time
from _thread import get_ident, get_native_id
from ctypes import byref
from functools import partial

from wali_core import _bridge as bridge
from wali_core import _monitor
from wali_core._abi import START_EXPORT
from wali_core._bridge import W
from wali_core._errors import (
    GuestDenied,
    GuestExit,
    GuestLimit,
    GuestTrap,
    WaliError,
    more_than,
    needs_more,
)
from wali_core._grants import PROCFS_ELSEWHERE
from wali_core._guest import AnyGuest, Guest
from wali_core._limits import Processes, limit_cpu_time
from wali_core._link import ProgramLink
from wali_core._signals import (
    ALL,
    Actions,
    hand_back,
    handle_trap,
    have_pending,
    mask_around_fork,
    pending,
    reset_actions,
    serve_polls,
    set_mask,
)
from wali_core.programs import _messages, _process_calls
from wali_core.programs._atomics import Atomics
from wali_core.programs._calls import (
    AT_FDCWD,
    GuestCalls,
    Startup,
    served_limits,
    served_links,
    served_times,
)
from wali_core.programs._exec import Executed, Executor, descriptors, keep_from_native_programs
from wali_core.programs._memory import WASM_PAGE, AddressSpace, LinearMemory, SharedMemory
from wali_core.programs._messages import served_messages
from wali_core.programs._process_calls import served_process, served_signals
from wali_core.programs._threads import TRAPPED, USED_UP, Threads
from wali_core.rewriting._prepare import CALL_EXPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final, NoReturn

    from wali_core._audit import Audit
    from wali_core._engine import Engine, Module
    from wali_core._function import Function
    from wali_core._link import Hook
    from wali_core.programs._calls import Place
    from wali_core.programs._environment import EnvironmentFile

NETWORK_ANY: Final = 4

# What is the process's own cannot be had by a guest that shares it (errno ENOSYS).
NOT_SHARED: Final = (
    "SYS_fork",
    "SYS_chdir",
    "SYS_fchdir",
    "SYS_getcwd",
    "SYS_umask",
    "SYS_kill",
    "SYS_tkill",
    "SYS_tgkill",
    "SYS_sendfile",
    "SYS_wait4",
    "SYS_waitid",
    "SYS_execve",
    "SYS_flock",
    "SYS_chroot",
    "SYS_prctl",
    "SYS_setitimer",
    "SYS_getitimer",
    "SYS_rt_sigaction",
    "SYS_rt_sigprocmask",
    "SYS_rt_sigpending",
    "SYS_rt_sigsuspend",
    "SYS_rt_sigtimedwait",
    "SYS_sigaltstack",
    "SYS_signalfd",
    "SYS_signalfd4",
    "SYS_setpgid",
    "SYS_setsid",
    "SYS_setuid",
    "SYS_setreuid",
    "SYS_setresuid",
    "SYS_setgid",
    "SYS_setregid",
    "SYS_setresgid",
    "SYS_setgroups",
    "SYS_sched_setscheduler",
    "SYS_setpriority",
)
_MAKES_THREADS: Final = frozenset(("__wasm_thread_spawn", "SYS_execve"))
"""Imports of programs that may have threads, or become one that has."""
_SAYS: Final = frozenset(("write", "writev"))
_ENOSYS: Final = 38
_PROC_SUPER_MAGIC: Final = 0x9FA0
_OF_THREADS: Final = (
    *(*_messages.OF_THREADS, *_process_calls.OF_THREADS),
    *("SYS_fork", "SYS_execve", "__wasm_thread_spawn"),
)
"""They are told which thread it is."""
_STOPPED: Final = -(1 << 63)
_ABORTED: Final = -512  # of the core's: a signal came before the call had begun
_SIGNED: Final = {"i": ctypes.c_int32, "I": ctypes.c_int64}

_libc = ctypes.CDLL(None)

TIMED_OUT: Final = 124
"""The status of a process that was out of time, as timeout(1) gives it."""


def _ending(name: str) -> Hook:
    def end(_arguments: Sequence[int], _proceed: Callable[[], int]) -> int:
        raise GuestDenied(name.removeprefix("SYS_"))

    return end


def _unsigned(value: int) -> int:
    return value & 0xFFFFFFFF


def _on_procfs(path: bytes) -> bool:
    """Does a path lead to a procfs?  If that cannot be known, it does."""
    status = (ctypes.c_int64 * 15)()  # struct statfs: f_type comes first
    return _libc.statfs(path, status) != 0 or status[0] == _PROC_SUPER_MAGIC


def _unserved(*_arguments: int) -> int:
    return -_ENOSYS


class AnyProgram(AnyGuest):
    """What all WALI programs have in common, however they wait."""

    def __init__(self, engine: Engine, module: Module, *, own_process: bool = True) -> None:
        super().__init__(engine, module)
        self._own_process = own_process
        self._memory: SharedMemory | None = None
        self._space: AddressSpace | None = None
        self._atomics: Atomics | None = None
        self._calls = GuestCalls(engine.core, self._context)
        self._startup = Startup(self._calls)
        self._place_environment: Place | None = None
        self._processes: Processes | None = None
        self._program_link: ProgramLink | None = None
        self._failures: dict[int, BaseException] = {}
        self._withheld: Mapping[str, str] = {}
        self._memory_limit: int | None = None
        self._mask = 0
        self._pid = os.getpid()
        self._executor: Callable[..., int] = _unserved
        self._resolved: tuple[Any, ...] = ()
        self._running: _monitor.Guard | None = None
        self.threads = Threads(self)
        self._masks = mask_around_fork()
        self._tids = memoryview(engine.core.running).cast("B").cast("q")  # the first one's first
        self._served = self._serve()
        self._callback = bridge.HOST_CALL(self._host)
        self._context.host = ctypes.cast(self._callback, ctypes.c_void_p).value
        self._context.direct = own_process

    # --- what its threads are made of -------------------------------------------------------------

    @property
    def core(self) -> bridge.Core:
        """The core that serves it."""
        return self._engine.core

    @property
    def engine(self) -> int:
        """The engine."""
        assert self._engine.pointer is not None
        return self._engine.pointer

    @property
    def stack(self) -> int:
        """How much of a thread's stack it may use, in bytes."""
        return self._engine.stack

    @property
    def address(self) -> int:
        """Of the first thread's context."""
        return self._address

    @property
    def context(self) -> bridge.Context:
        """The first thread's context."""
        return self._context

    @property
    def pre(self) -> int:
        """The module with its imports."""
        assert self._program_link is not None
        assert self._program_link.pre is not None
        return self._program_link.pre

    @property
    def memory_base(self) -> int:
        """Where the memory begins that all share."""
        assert self._memory is not None
        return self._memory.base

    def serve_instance(
        self, store: int, instance: bridge.Instance, context: bridge.Context
    ) -> None:
        """Put in place what the code of an instance looks at, and what it waits by."""
        serve_polls(self.core, store, instance, context)
        if self._atomics is not None:
            self._atomics.serve(store, instance, ctypes.addressof(context))

    def failure_of(self, context: int) -> BaseException | None:
        """What a call in Python has raised for the thread with this context."""
        assert self._program_link is not None
        return self._failures.pop(context, None) or self._program_link.functions.failure

    # --- making -----------------------------------------------------------------------------------

    def set_arguments(
        self, argv: Sequence[bytes], environment: bytes | None, place: Place | None
    ) -> None:
        """What ``__cl_*`` and ``__get_init_envfile`` will answer."""
        if self._own_process:
            self._mask = set_mask(ALL)  # until it runs
        self._context.cwd = AT_FDCWD if self._own_process else -1
        self._place_environment = place
        self._startup = Startup(self._calls, argv, environment, place)

    def serve_environment(self, file: EnvironmentFile | None) -> dict[str, Hook]:
        """What goes around its calls where its environment is in no file that it can open."""
        return file.hooks(self._calls) if file else {}

    def waiting(self) -> dict[str, Hook]:
        """What goes around its calls that would wait in the kernel, where it shares the process."""
        if self._own_process or self.cooperative:
            return {}
        from wali_core.programs._waits import ThreadWaiting

        waiting = ThreadWaiting(self._engine.core, self._context, self._calls, self.raise_end)
        return waiting.hooks()

    def let(self, network: int, procfs: int, *, confined: bool) -> None:
        """What the core has to know of sockets and of procfs: see ``Confinement``."""
        elsewhere = not confined and not (_on_procfs(b"/") or _on_procfs(b"."))
        self._context.network = network
        self._context.table.contents.procfs = procfs | (PROCFS_ELSEWHERE if elsewhere else 0)

    def limit_processes(self, most: int | None) -> None:
        """Let it be so many processes at a time, with all that it forks."""
        if most is not None:
            self._processes = Processes(most)

    def limit_threads(self, most: int | None) -> None:
        """Let each of its processes have so many threads at a time."""
        self.threads.most = most

    def let_execute(
        self,
        load: Callable[[bytes, str], Module],
        roots: Sequence[str] | None,
        leave: Callable[[bytes], None] | None = None,
    ) -> None:
        """What execve needs: see ``Executor``."""
        keep_from_native_programs()
        self._executor = Executor(self._calls, load, roots, self.threads.make_way, leave).execve

    def begin_thread(self) -> None:
        """Let it have another thread; ``end_thread`` is to be called when that ends.

        Raises ``GuestLimit`` where it has enough.
        """
        if self._processes is not None:
            self._processes.add()

    def end_thread(self) -> None:
        """A thread has ended."""
        if self._processes is not None:
            self._processes.remove()

    def watch_calls(
        self, audit: Audit | None, gate: Mapping[str, int], *, ends: bool
    ) -> dict[str, Hook]:
        """What goes around its calls: to write them down, and to end it at one that is held back.

        The audit is closed with it.
        """
        self._audit = audit
        if audit is not None:
            from wali_core.programs._audit_program import hooks

            return hooks(audit, self._calls, gate, os.getcwd())
        return {name: _ending(name) for name in gate} if ends else {}

    def tell_withheld(self, withheld: Mapping[str, str]) -> dict[str, Hook]:
        """Have it said at the program's end which of these calls it was refused, and why each.

        It gives what goes around the calls that end it.
        """
        self._withheld = withheld

        def leave(arguments: Sequence[int], proceed: Callable[[], int]) -> int:
            self._say_withheld(failed=arguments[0] != 0)
            return proceed()

        return dict.fromkeys(("SYS_exit_group", "__proc_exit"), leave) if withheld else {}

    def _say_withheld(self, *, failed: bool) -> None:
        denials = self._program_link.denials if self._program_link else {}
        refused = [
            f"{name} ({why})"
            for name, why in self._withheld.items()
            if (denial := denials.get(f"SYS_{name}")) and denial.count and (failed or name in _SAYS)
        ]
        if refused and not self._forked:
            message = "wali: the program was refused what nearly every one calls: "
            os.write(2, f"{message}{', '.join(refused)}\n".encode())

    def resolve(
        self,
        gate: Mapping[str, int],
        memory_limit: int | None,
        hooks: Mapping[str, Hook] | None = None,
    ) -> ProgramLink:
        """Make the memory and resolve the imports.  Nothing of the program has run yet."""
        self._resolved = gate, memory_limit, hooks
        held = dict(gate)
        if not self._own_process:
            held |= dict.fromkeys(set(NOT_SHARED) - set(self._calls_instead()), _ENOSYS)
        elif any(item.name in _MAKES_THREADS for item in self._module.imports):
            self.threads.prepare()
        extern = self._make_memory(memory_limit)
        threads = any(item.name == "__wasm_thread_spawn" for item in self._module.imports)
        self._program_link = ProgramLink(
            self._module,
            held,
            store=self._store,
            memory=extern,
            host_calls=self._host_calls(),
            hooks=hooks,
            instead=self._calls_instead(),
            suspending=self._suspending_calls(),
            cooperative=self.cooperative,
            context=None if threads else self._address,
        )
        return self._program_link

    def _calls_instead(self) -> Mapping[str, Callable[..., Any]]:
        """Calls in Python that stand for those of the core, where it waits in its slot."""
        return {}

    def _suspending_calls(self) -> Mapping[str, bridge.Extern]:
        """Functions around calls that can wait, where it waits in its slot."""
        return {}

    def _make_memory(self, limit: int | None) -> bridge.Extern | None:
        """The memory that the prepared module imports; None where it has none."""
        wanted = next((item for item in self._module.imports if item.memory is not None), None)
        if wanted is None or wanted.memory is None:
            return None
        least, most, shared = wanted.memory
        most = most if most is not None else 1 << 16
        if limit is not None and limit // WASM_PAGE < most:
            most, self._memory_limit = limit // WASM_PAGE, limit
        if least > most:
            assert limit is not None  # no valid module says less than it starts with
            raise needs_more(self._module.origin, least * WASM_PAGE, limit)
        if not shared:
            return self._plain_memory(least, most)
        assert self._engine.pointer is not None
        self._memory = SharedMemory(self._engine.pointer, least, most)
        self._engine.core.context_bind_shared(self._address, self._store, self._memory.base)
        self._atomics = Atomics(self._engine.core, self._memory.base)
        self._manage(self._memory.linear())
        extern = bridge.Extern(kind=bridge.EXTERN_SHAREDMEMORY)
        extern.of.sharedmemory = self._memory.pointer
        return extern

    def _plain_memory(self, least: int, most: int) -> bridge.Extern:
        """An unshared memory, for a trusted program in this process."""
        memorytype, extern = ctypes.c_void_p(), bridge.Extern(kind=bridge.EXTERN_MEMORY)
        memory = extern.of.memory
        bridge.check(
            W["wasmtime_memorytype_new"](least, True, most, False, False, 16, byref(memorytype))
        )
        try:
            bridge.check(W["wasmtime_memory_new"](self._store, memorytype, byref(memory)))
        finally:
            W["wasm_memorytype_delete"](memorytype)
        self._engine.core.context_bind(self._address, 0, self._store, byref(memory), 0)

        base: int = W["wasmtime_memory_data"](self._store, byref(memory))
        size, grow = partial(self._size, memory), partial(self._grow, memory)
        self._manage(LinearMemory(base, size, grow, most * WASM_PAGE))
        return extern

    def _size(self, memory: bridge.Memory) -> int:
        return int(W["wasmtime_memory_data_size"](self._store, byref(memory)))

    def _grow(self, memory: bridge.Memory, pages: int) -> int:
        previous = ctypes.c_uint64()
        error = W["wasmtime_memory_grow"](self._store, byref(memory), pages, byref(previous))
        if error:
            bridge.error_message(error)
        return -1 if error else previous.value * WASM_PAGE

    def _manage(self, memory: LinearMemory) -> None:
        def host_of(number: int) -> int:
            return int(self._engine.core.descriptor_host(self._address, number))

        def exceed() -> None:
            if self._memory_limit is not None:
                raise more_than("memory", self._memory_limit)

        def allowed() -> int:
            limit = self._calls.address_space
            return limit[0] if limit else memory.most

        self._space = AddressSpace(memory, host_of, exceed, allowed, own_process=self._own_process)

    def _read_memory(self, address: int, size: int) -> bytes:
        return self._calls.read(address, size)

    # --- the rare calls ---------------------------------------------------------------------------

    def _host(self, context: int, call: int, values: int) -> int:
        """A call that Python serves, from the core; ``context`` is the calling thread's."""
        function, types, of_thread = self._served[call]
        try:
            arguments = [t.from_address(values + 16 * i).value for i, t in enumerate(types)]
            return function(context, *arguments) if of_thread else function(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised again where the guest was called
            self._failures[context] = error
            return _STOPPED

    def _serve(self) -> list[tuple[Callable[..., int], list[Any], bool]]:
        """Every call in the order of the core's numbers, with the types of its arguments."""
        calls = self._host_calls()
        rows = {
            name: row for (module, name), row in self._engine.core.calls.items() if module == "wali"
        }
        served = []
        for name in self._engine.core.host_calls:
            row = rows.get(name) or rows.get(f"SYS_{name}")
            types = row.parameters.decode() if row else ""
            function = calls.get(name, _unserved)
            served.append((function, [_SIGNED[kind] for kind in types], name in _OF_THREADS))
        return served

    def _host_calls(self) -> dict[str, Callable[..., int]]:
        return {
            **self._memory_calls(),
            "SYS_fork": self._fork,
            **self._startup_calls(),
            **served_limits(self._calls),
            **served_times(self._calls),
            **served_links(self._calls),
            "SYS_execve": self._execve,
            **served_process(self._calls, free=lambda: self._context.network & NETWORK_ANY != 0),
            **served_signals(self._calls),
            **served_messages(self._calls, self._engine.core, lambda: self._spaced().memory),
            "__wasm_thread_spawn": self._spawn,
            "longjmp": self._longjmp,
        }

    def _memory_calls(self) -> dict[str, Callable[..., int]]:
        """Of one thread at a time."""

        def alone(call: Callable[..., int]) -> Callable[..., int]:
            def locked(*arguments: int) -> int:
                with self.threads.lock:
                    return call(*arguments)

            return locked

        return {
            "SYS_mmap": alone(self._mmap),
            "SYS_munmap": alone(
                lambda at, size: self._spaced().munmap(_unsigned(at), _unsigned(size))
            ),
            "SYS_mremap": alone(self._mremap),
            "SYS_mprotect": alone(
                lambda at, size, prot: self._spaced().mprotect(_unsigned(at), _unsigned(size), prot)
            ),
            "SYS_msync": alone(
                lambda at, size, flags: self._spaced().msync(_unsigned(at), _unsigned(size), flags)
            ),
            "SYS_madvise": alone(
                lambda at, size, how: self._spaced().madvise(_unsigned(at), _unsigned(size), how)
            ),
            "SYS_brk": alone(lambda at: self._spaced().brk(_unsigned(at))),
        }

    def _startup_calls(self) -> dict[str, Callable[..., int]]:
        """Of whatever start-up there is at the time: exec brings another."""

        def call(name: str, *arguments: int) -> int:
            return self._startup.served()[name](*arguments)

        return {name: partial(call, name) for name in self._startup.served()}

    def _spaced(self) -> AddressSpace:
        assert self._space is not None
        return self._space

    def _mmap(self, at: int, size: int, prot: int, flags: int, fd: int, offset: int) -> int:
        return self._spaced().mmap(_unsigned(at), _unsigned(size), prot, flags, fd, offset)

    def _mremap(self, old: int, old_size: int, size: int, flags: int, new: int) -> int:
        return self._spaced().mremap(
            _unsigned(old), _unsigned(old_size), _unsigned(size), flags, _unsigned(new)
        )

    def _fork(self, context: int) -> int:
        """In the child only the calling thread goes on, and it is alone.

        A page is copied for most of the objects that are looked at there: so both do the same, with
        what is at hand, unless there is more to be put right.
        """
        if self._has_company():
            return self._fork_with_company(context)
        (block, unblock), tids, native_id, fork = self._masks, self._tids, get_native_id, os.fork
        block()
        try:
            if self._context.signal:
                return _ABORTED  # the handler runs first, and in the parent alone
            child = fork()
            tids[0] = native_id()
        except OSError as error:
            return -(error.errno or _ENOSYS)
        finally:
            unblock()
        return child

    def _has_company(self) -> bool:
        """Is there, or was there, anything in the process that a child does not have?"""
        watched = self._running is not None and self._running.deadline is not None
        return watched or self.threads.shared or self._processes is not None

    def _fork_with_company(self, context: int) -> int:
        block, unblock = self._masks
        with self.threads.lock:
            block()
            try:
                if bridge.Context.from_address(context).signal:
                    return _ABORTED
                child = self._fork_whole(context)
                if child == 0:
                    self._in_child(context)
            except OSError as error:
                return -(error.errno or _ENOSYS)
            finally:
                unblock()
        return child

    def _fork_whole(self, context: int) -> int:
        """Fork at a time when no other thread is about to change what they share."""
        self.threads.hold_descriptors(context)
        try:
            return self._processes.fork() if self._processes else os.fork()
        finally:
            self.threads.let_go()

    def _in_child(self, context: int) -> None:
        self.threads.forget(context)
        if self._running is not None and self._running.deadline is not None:
            self._running.watch_again()

    @property
    def _forked(self) -> bool:
        """Is this a process that the program has forked?"""
        return os.getpid() != self._pid

    def _spawn(self, context: int, entry: int, argument: int) -> int:
        if not self._own_process or self._memory is None:
            return -1
        return self.threads.spawn(context, _unsigned(entry), _unsigned(argument))

    def _execve(self, context: int, path: int, argv: int, environ: int) -> int:
        return self._executor(context, path, argv, environ)

    def _close_instance(self) -> None:
        """Free what is the program's own, and not the process's."""
        if self._store is not None:
            self._store = self._context.poll = None
            W["wasmtime_store_delete"](self._store_owner)
        if self._program_link is not None:
            self._program_link.close()
            self._program_link = None
        if self._memory is not None:
            self._memory.close()
            self._memory = self._atomics = None
        self._startup.close()

    def _longjmp(self, _buffer: int, _value: int) -> int:
        imported = {item.name for item in self._module.imports}
        setting = [f"wali.{name}" for name in ("setjmp", "sigsetjmp") if name in imported]
        raise GuestTrap(
            f"{self._module.origin}: the program called wali.longjmp, which this version does not "
            f"serve: where it has called {' or '.join(setting) or 'nothing'} there is no way back"
        )

    def _stopped(self) -> BaseException | None:
        link = self._program_link
        failure = self._failures.get(self._address) or (link and link.functions.failure)
        end = failure or super()._stopped()
        return GuestExit(end.status & 0xFF) if isinstance(end, GuestExit) else end  # as wait(2)

    # --- its end ----------------------------------------------------------------------------------

    def go_on(self, program: Executed) -> NoReturn:
        """Become another program, in a thread that has not been the first: see ``Program``."""
        raise NotImplementedError(program)

    def close(self) -> None:
        """End the program, and what it holds."""
        super().close()
        self._close_instance()
        if self._processes is not None:
            self._processes.close()


class Program(AnyProgram, Guest):
    """One WALI program.  Made by ``Runtime``; started by ``call("_start")``."""

    _starts = False
    """Has it a start function that has not run?"""

    def limit_computing(self, seconds: float | None, *, whole_run: bool) -> None:
        """Bound its computing time; what it forks is each held to as much, in whole seconds."""
        super().limit_computing(seconds, whole_run=whole_run)
        if seconds is None or not self._own_process:
            return
        limit_cpu_time(int(time.process_time() + seconds) + 2)

    def start_program(self, link: ProgramLink, *, again: bool = False) -> None:
        """Instantiate.  In a process of its own the start function runs with the first call."""
        with self._guard():
            self._instance = self._instantiate_linked(link.pre)
        if self._own_process:
            assert self._store is not None
            self.serve_instance(self._store, self._instance, self._context)
            self._starts = self._export(self._instance, START_EXPORT) is not None
            self._take_signals(again=again)

    def call(self, name: str, *args: float, timeout: float | None = None) -> Any:
        """Run the program; where it has threads or has forked, its end is the process's."""
        if self._own_process:
            set_mask(self._mask)
        while True:
            try:
                return super().call(name, *args, timeout=timeout)
            except Executed as program:
                self._become(program)
            except GuestTrap:
                self._say_withheld(failed=True)
                raise
            except GuestExit as end:
                self._outlive_threads(end)

    def _run_now(self, function: Function, args: Sequence[float]) -> Any:
        """Before the first, the start function, which initialises the memory."""
        if self._starts:
            self._starts = False
            self._call_own(START_EXPORT)
        return super()._run_now(function, args)

    def _finish_call(self, error: int | None, trap: int | None) -> None:
        context, store = self._context, self._store
        if trap and store and context.store == self._store_owner and self._stopped() is None:
            handled = handle_trap(self._engine.core, store, context.call, trap)
            if handled is not None:
                W["wasm_trap_delete"](trap)
                error, trap = handled
        super()._finish_call(error, trap)

    def _outlive_threads(self, end: GuestExit) -> None:
        """The first has ended, and so has the process, unless another has executed a program."""
        status = self.threads.outlive(end.status)
        if self.threads.successor is not None:
            self._become(self.threads.successor)
            return
        if self._forked:
            os._exit(status)
        raise GuestExit(status) from None

    def go_on(self, program: Executed) -> NoReturn:
        """Become another program in a thread that has forked, where that was not the first."""
        status = TRAPPED
        self._thread = get_ident()
        try:
            self._become(program)
            self.call("_start")
            status = 0
        except GuestExit as end:
            status = end.status
        except GuestTrap as error:
            os.write(2, f"wali: the program trapped: {error}\n".encode())
        except WaliError as error:
            os.write(2, f"wali: {error}\n".encode())
            status = USED_UP if isinstance(error, GuestLimit) else TRAPPED
        os._exit(status & 0xFF)

    def _become(self, program: Executed) -> None:
        """Go on as another program: with its descriptors, but for those that close on exec."""
        set_mask(ALL)
        self.threads.begin_again()
        core, context = self._engine.core, self._context
        for number, _, flags in tuple(descriptors(context)):
            if flags & bridge.DESCRIPTOR_CLOEXEC:
                core.descriptor_release(self._address, number)
        self._close_instance()
        was_pending = program.pending | pending()
        reset_actions(at_start=False)
        Actions(core).reset()
        hand_back(context)
        have_pending(was_pending)  # some were a thread's that is gone; others are discarded by that
        context.stop, context.trap, self._ended = bridge.STOP_NONE, None, None
        self._functions.clear()
        self._failures.clear()
        self._module, self._engine = program.module, program.module.engine
        self._served = self._serve()
        self.open_store()
        environment = program.environment()
        self._startup = Startup(self._calls, program.argv, environment, self._place_environment)
        self.start_program(self.resolve(*self._resolved), again=True)
        self._mask = program.mask
        set_mask(self._mask)

    def _take_signals(self, *, again: bool) -> None:
        """From here on signals are the program's."""
        found = self._export(self._instance, CALL_EXPORT)
        if found is not None:
            self._context.call = found.of.func
        self._context.store = self._store_owner
        self._engine.core.take_sent_signals()
        if not again:
            reset_actions()
        self.threads.enter(self._address)

    def _guard(self, timeout: float | None = None) -> _monitor.Guard:
        self._running = super()._guard(timeout)
        return self._running

    def _deadline_action(self) -> Callable[[], None] | None:
        """In a process of its own it may wait in the kernel, where only its end helps."""
        if not self._own_process:
            return None
        message = (
            f"wali: the guest was stopped after its {self._seconds:g} s (wall_time)\n".encode()
        )

        def end() -> None:
            if not self._forked:  # once is enough
                os.write(2, message)
            os._exit(TIMED_OUT)

        return end
