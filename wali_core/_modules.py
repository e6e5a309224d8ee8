"""The compiled modules of a runtime, and what its guests are linked with: each made once."""

from __future__ import annotations

import os
from _thread import allocate_lock
from functools import partial

from wali_core import _abi
from wali_core._engine import Module, sniff
from wali_core._errors import GuestTimeout, PolicyError, UseError
from wali_core._link import ShimLink
from wali_core._passes import (
    PROCESS,
    SHARED,
    NoProgram,
    may_be_program,
    prepare_guest,
    prepare_if_program,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Iterable
    from typing import Final

    from wali_core._cache import Cache
    from wali_core._engine import Engine
    from wali_core.programs._executables import Executables
    from wali_core.programs._suspending import SuspendingLink

    ModuleSource = str | os.PathLike[str] | bytes | Module
    Linked = tuple[_abi.Shim, ShimLink]

_ISOLATIONS: Final = (PROCESS, SHARED)
_KEPT: Final = 64  # modules at hand
_ENOUGH: Final = 4096  # bytes that show what a file is


class Modules:
    """What is compiled by one engine.  May be shared between threads.

    ``on_compile`` is told a module's name and its size in bytes before it is compiled, which may
    take long; it is not called for what is in the cache.
    """

    def __init__(
        self,
        engine: Engine,
        cache: Cache | None,
        on_compile: Callable[[str, int], None] | None = None,
    ) -> None:
        self._engine, self._cache, self._on_compile = engine, cache, on_compile
        self._lock, self._making = allocate_lock(), allocate_lock()
        self._loaded: dict[tuple[str, str], Module] = {}
        self._compiling: dict[tuple[str, str], LockType] = {}
        self._links: dict[str, Linked] = {}
        self._cooperative_links: dict[str, Linked] = {}
        self._suspending: SuspendingLink | None = None
        self._executables: Executables | None = None
        self._closed = False

    # --- guests' modules --------------------------------------------------------------------------

    def load(self, module: ModuleSource, isolation: str) -> Module:
        """As ``Runtime.load``."""
        if isolation not in _ISOLATIONS:
            raise PolicyError(f"isolation: {isolation!r}: it must be {PROCESS!r} or {SHARED!r}")
        if isinstance(module, Module):
            self._refuse_unfit(module, isolation)
            return module
        data, origin = _read(module)
        # With the name: it is what errors say, and what the program finds as its own.
        preparation = isolation if may_be_program(data) else "guest"
        key = self._engine.key(data, preparation), origin
        with self._lock:
            loaded = self._loaded.get(key)
            if loaded is not None:
                return loaded
            turn = self._compiling.setdefault(key, allocate_lock())
        with turn:  # whoever asks for it meanwhile gets what this one has compiled
            with self._lock:
                loaded = self._loaded.get(key)
            if loaded is None:
                loaded = self._compile_prepared(data, origin, isolation)
            with self._lock:
                self._compiling.pop(key, None)
                while len(self._loaded) >= _KEPT:
                    del self._loaded[next(iter(self._loaded))]
                self._loaded[key] = loaded
        return loaded

    def load_within(
        self, bound: tuple[float, float] | None, module: ModuleSource, isolation: str
    ) -> Module:
        """As ``load``, until then (monotonic): compiling takes its time, and is not interrupted.

        ``bound`` is when that must be over, and how many seconds that is: it is said by the
        ``GuestTimeout`` that is raised then.
        """
        load = partial(self.load, module, isolation)
        if isinstance(module, Module):
            return load()
        from wali_core._patience import within

        return within(bound, load)

    async def load_as_task(
        self, bound: tuple[float, float] | None, module: ModuleSource, isolation: str
    ) -> Module:
        """The same for a task, by trio's clock."""
        if isinstance(module, Module):
            return self.load(module, isolation)
        import trio

        load = partial(self.load, module, isolation)
        with trio.CancelScope() as scope:
            if bound is not None:
                scope.deadline = bound[0]
            return await trio.to_thread.run_sync(load, abandon_on_cancel=True)
        assert bound is not None
        raise GuestTimeout(bound[1])

    def _compile_prepared(self, data: bytes, origin: str, isolation: str) -> Module:
        if may_be_program(data):
            try:
                prepare = partial(prepare_if_program, origin=origin, isolation=isolation)
                return self.compile(data, origin, isolation, prepare)
            except NoProgram:
                pass
        return self.compile(data, origin, "guest", partial(prepare_guest, origin=origin))

    def _refuse_unfit(self, module: Module, isolation: str) -> None:
        if module.engine not in (self._engine, self._engine.polling()):
            raise UseError("the module was loaded by another runtime: load it with this one")
        if _abi.interface_of(module) == _abi.WALI and module.preparation != isolation:
            raise UseError(
                f"{module.origin}: was loaded for isolation={module.preparation!r}: "
                f"load it with isolation={isolation!r}"
            )

    def compile(
        self,
        data: bytes,
        origin: str,
        preparation: str = "",
        prepare: Callable[[bytes], bytes] | None = None,
    ) -> Module:
        """As ``Engine.compile``, by the engine that is for modules that are prepared so."""
        tell = self._on_compile
        engine = self._engine.polling() if preparation == PROCESS else self._engine
        return engine.compile(
            data,
            origin,
            self._cache,
            preparation=preparation,
            prepare=prepare,
            on_compile=None if tell is None else lambda size: tell(origin, size),
        )

    # --- what serves them -------------------------------------------------------------------------

    def shim(self, interface: str, *, cooperative: bool = False) -> Linked:
        """The shim that serves an interface, linked for guests of this kind."""
        links = self._cooperative_links if cooperative else self._links
        with self._lock:
            found = links.get(interface)
        if found is None:
            with self._making:  # once, whoever else needs it meanwhile
                found = links.get(interface) or self._made(interface, cooperative=cooperative)
        assert found is not None
        return found

    async def have_shim(self, interface: str) -> None:
        """Compile what tasks of this kind need, on a thread: it takes a tenth of a second."""
        if interface in self._cooperative_links:
            return
        import trio

        from wali_core.tasks._reactor import compiling

        async with compiling():  # the others of this run wait without a thread
            if interface in self._cooperative_links:
                return
            if self._made(interface, cooperative=True, compiles=False) is None:
                make = partial(self.shim, interface, cooperative=True)
                await trio.to_thread.run_sync(make, abandon_on_cancel=True)

    def _made(self, interface: str, *, cooperative: bool, compiles: bool = True) -> Linked | None:
        """Make it; None where that takes a compilation, and ``compiles`` is not set."""
        shim = _abi.shim_for(interface)
        path = shim.path()
        with open(path, "rb") as file:
            data = file.read()
        if compiles:
            module: Module | None = self.compile(data, path)
        else:
            module = self._engine.cached(data, path, self._cache) if self._cache else None
        if module is None:
            return None
        made = shim, ShimLink(module, cooperative=cooperative)
        self.serve(shim, made[1], cooperative=cooperative)
        return made

    def serve(self, shim: _abi.Shim, link: ShimLink, *, cooperative: bool = False) -> None:
        """Have all interfaces of a shim served by this link from now on."""
        links = self._cooperative_links if cooperative else self._links
        with self._lock:
            if not self._closed:
                links.update(dict.fromkeys(shim.modules, (shim, link)))

    def suspending_link(self) -> SuspendingLink:
        """What WALI programs that are tasks wait by, made for the first of them."""
        from wali_core.programs._suspending import SuspendingLink, suspending_calls

        found = self._suspending
        if found is None:
            calls = suspending_calls(self._engine.core)
            found = SuspendingLink(self.compile(calls, "<calls that can wait>"), cooperative=True)
            if not self._closed:
                self._suspending = found
        return found

    def executables(self, granted: Iterable[str], *, compiling: bool) -> Executables:
        """What programs execute, made for the first of them; ``granted`` are the paths of that."""
        from wali_core.programs._executables import Executables

        with self._lock:
            if self._executables is None:
                self._executables = Executables(self._engine.polling(), self._cache)
                self._executables.make_ready(granted, compiling=compiling)
            return self._executables

    # --- their end --------------------------------------------------------------------------------

    def forget(self) -> None:
        """Keep none from now on: what somebody is just making goes with its last user."""
        self._closed = True
        with self._lock:
            self._links.clear()
            self._cooperative_links.clear()
            self._loaded.clear()
            self._suspending = None


def _read(module: str | os.PathLike[str] | bytes) -> tuple[bytes, str]:
    if isinstance(module, bytes):
        return module, "<module>"
    path = os.fspath(module)
    with open(path, "rb") as file:
        start = file.read(_ENOUGH)
        sniff(start, path)  # before all is read: a device has no end
        return start + file.read(), path
