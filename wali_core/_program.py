"""A WALI program: a module that is a Linux process.

It has its process for itself, which ``wali run`` is: its memory is mapped, its working directory is
the process's, fork makes another, and what ends it ends the process.  A trusted program may share
the embedder's process instead (``isolation="shared"``), without all that.
"""

from __future__ import annotations

import ctypes
import math
import os
import time
from ctypes import byref

from wali_core import _bridge as bridge
from wali_core._bridge import W
from wali_core._calls import AT_FDCWD, GuestCalls, Startup, served_limits, served_times
from wali_core._errors import GuestTrap, ModuleError
from wali_core._guest import Guest
from wali_core._limits import Processes, limit_cpu_time
from wali_core._link import ProgramLink
from wali_core._memory import WASM_PAGE, AddressSpace, LinearMemory, SharedMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    from wali_core._engine import Engine, Module
    from wali_core._link import Hook

NETWORK_CONNECT, NETWORK_LISTEN, NETWORK_ANY = 1, 2, 4

# What is the process's own cannot be had by a guest that shares it (errno ENOSYS).
NOT_SHARED: Final = (
    "SYS_fork",
    "SYS_chdir",
    "SYS_fchdir",
    "SYS_getcwd",
    "SYS_umask",
    "SYS_kill",
    "SYS_wait4",
)
_ENOSYS: Final = 38

TIMED_OUT: Final = 124
"""The status of a process that was out of time, as timeout(1) gives it."""


def _unsigned(value: int) -> int:
    return value & 0xFFFFFFFF


class Program(Guest):
    """One WALI program.  Made by ``Runtime``; started by ``call("_start")``."""

    def __init__(self, engine: Engine, module: Module, *, own_process: bool = True) -> None:
        super().__init__(engine, module)
        self._own_process = own_process
        self._memory: SharedMemory | None = None
        self._space: AddressSpace | None = None
        self._calls = GuestCalls(engine.core, self._context)
        self._startup = Startup(self._calls)
        self._links: list[ProgramLink] = []
        self._processes: Processes | None = None

    # --- making -----------------------------------------------------------------------------------

    def set_arguments(
        self, argv: Sequence[bytes], environment: bytes | None, place: str | None, network: int
    ) -> None:
        """What ``__cl_*`` and ``__get_init_envfile`` will answer, and what sockets it may make."""
        self._context.cwd = AT_FDCWD if self._own_process else -1
        self._context.network = network
        self._startup = Startup(self._calls, argv, environment, place)

    def limit_computing(self, seconds: float | None, *, whole_run: bool) -> None:
        """Bound its computing time; what it forks is each held to as much, in whole seconds."""
        super().limit_computing(seconds, whole_run=whole_run)
        if seconds is None or not self._own_process:
            return
        limit_cpu_time(math.ceil(time.process_time() + seconds) + 1)

    def limit_processes(self, most: int | None) -> None:
        """Let it be so many processes at a time, with all that it forks."""
        if most is not None:
            self._processes = Processes(most)

    def resolve(
        self,
        gate: Mapping[str, int],
        memory_limit: int | None,
        hooks: Mapping[str, Hook] | None = None,
    ) -> ProgramLink:
        """Make the memory and resolve the imports.  Nothing of the program has run yet."""
        held = dict(gate)
        if not self._own_process:
            held |= dict.fromkeys(NOT_SHARED, _ENOSYS)
        extern = self._make_memory(memory_limit)
        link = ProgramLink(
            self._module,
            held,
            store=self._store,
            memory=extern,
            host_calls=self._host_calls(),
            hooks=hooks,
        )
        self._links.append(link)
        return link

    def start_program(self, link: ProgramLink) -> None:
        """Instantiate: the program's start function runs, which initialises its memory."""
        with self._guard():
            self._instance = self._instantiate_linked(link.pre)

    def _make_memory(self, limit: int | None) -> bridge.Extern | None:
        """The memory that the prepared module imports; None where it has none."""
        wanted = next((item for item in self._module.imports if item.memory is not None), None)
        if wanted is None or wanted.memory is None:
            return None
        least, most, shared = wanted.memory
        most = most if most is not None else 1 << 16
        if limit is not None:
            most = min(most, limit // WASM_PAGE)
        if least > most:
            raise ModuleError(
                f"{self._module.origin}: needs {least * WASM_PAGE} bytes of memory to start, "
                f"and may have {limit}"
            )
        if not shared:
            return self._plain_memory(least, most)
        assert self._engine.pointer is not None
        self._memory = SharedMemory(self._engine.pointer, least, most)
        self._engine.core.context_bind_shared(self._address, self._memory.pointer)
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

        def size() -> int:
            return int(W["wasmtime_memory_data_size"](self._store, byref(memory)))

        def grow(pages: int) -> bool:
            previous = ctypes.c_uint64()
            error = W["wasmtime_memory_grow"](self._store, byref(memory), pages, byref(previous))
            if error:
                bridge.error_message(error)
            return not error

        base: int = W["wasmtime_memory_data"](self._store, byref(memory))
        self._manage(LinearMemory(base, size, grow, most * WASM_PAGE))
        return extern

    def _manage(self, memory: LinearMemory) -> None:
        def host_of(number: int) -> int:
            return int(self._engine.core.descriptor_host(self._address, number))

        self._space = AddressSpace(memory, host_of, own_process=self._own_process)

    def _read_memory(self, address: int, size: int) -> bytes:
        return self._calls.read(address, size)

    # --- the rare calls ---------------------------------------------------------------------------

    def _host_calls(self) -> dict[str, Callable[..., int]]:
        return {
            "SYS_mmap": self._mmap,
            "SYS_munmap": lambda at, size: self._spaced().munmap(_unsigned(at), _unsigned(size)),
            "SYS_mremap": self._mremap,
            "SYS_mprotect": lambda at, size, prot: self._spaced().mprotect(
                _unsigned(at), _unsigned(size), prot
            ),
            "SYS_msync": lambda at, size, flags: self._spaced().msync(
                _unsigned(at), _unsigned(size), flags
            ),
            "SYS_madvise": lambda at, size, advice: self._spaced().madvise(
                _unsigned(at), _unsigned(size), advice
            ),
            "SYS_fork": self._fork,
            **self._startup.served(),
            **served_limits(self._calls),
            **served_times(self._calls),
            "__wasm_thread_spawn": lambda _entry, _argument: -1,
            # Nothing to note, since nothing can come back here: most programs only ever set.
            "setjmp": lambda _buffer: 0,
            "sigsetjmp": lambda _buffer, _mask: 0,
            "longjmp": self._longjmp,
        }

    def _spaced(self) -> AddressSpace:
        assert self._space is not None
        return self._space

    def _mmap(self, at: int, size: int, prot: int, flags: int, fd: int, offset: int) -> int:
        return self._spaced().mmap(_unsigned(at), _unsigned(size), prot, flags, fd, offset)

    def _mremap(self, old: int, old_size: int, size: int, flags: int, new: int) -> int:
        return self._spaced().mremap(
            _unsigned(old), _unsigned(old_size), _unsigned(size), flags, _unsigned(new)
        )

    def _fork(self) -> int:
        if self._processes is not None:
            return self._processes.fork()
        try:
            return os.fork()
        except OSError as error:
            return -(error.errno or _ENOSYS)

    def _longjmp(self, _buffer: int, _value: int) -> int:
        raise GuestTrap(
            f"{self._module.origin}: the program called longjmp, which this version does not serve"
        )

    def _deadline_action(self) -> Callable[[], None] | None:
        """In a process of its own it may wait in the kernel, where only its end helps."""
        if not self._own_process:
            return None
        message = f"wali: the guest was stopped after its {self._seconds:g} s\n".encode()

        def end() -> None:
            os.write(2, message)
            os._exit(TIMED_OUT)

        return end

    def _stopped(self) -> BaseException | None:
        failures = (link.failure for link in self._links)
        return next((f for f in failures if f is not None), None) or super()._stopped()

    # --- its end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the program, and what it holds."""
        super().close()
        for link in self._links:
            link.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        self._startup.close()
        if self._processes is not None:
            self._processes.close()
