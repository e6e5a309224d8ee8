"""What programs execute, compiled: the Wasm files among the programs that a policy grants.

A confined process reaches no cache, and what it compiles is lost with it.  So what a policy grants
by its name is compiled before, once, and kept in the cache; of a granted folder what is there.
"""

from __future__ import annotations

import os
from functools import partial

from wali_core._passes import PROCESS, prepare_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

    from wali_core._cache import Cache
    from wali_core._engine import Engine, Module

_MAGIC: Final = b"\0asm"
_MOST: Final = 64
"""How many files of a folder are looked at."""


class Executables:
    """Loads what is executed in this process, or in one that it has forked.

    ``engine`` is one for modules with polls.
    """

    def __init__(self, engine: Engine, cache: Cache | None) -> None:
        self._engine, self._cache = engine, cache
        self._ready: dict[str, Module] = {}
        self._own = os.getpid()
        self._confined = False

    def begin(self, *, confined: bool) -> None:
        """This process is a program's now; a confined one is out of the cache's reach."""
        self._own, self._confined = os.getpid(), confined

    def make_ready(self, grants: Iterable[str], *, compiling: bool) -> None:
        """Have what is granted at hand: from the cache, or if it is named itself compiled."""
        if self._cache is None:
            return
        for path, is_named in _granted(grants):
            data = _wasm(path)
            if data is None:
                continue
            module = self._engine.cached(data, path, self._cache, preparation=PROCESS)
            if module is None and is_named and compiling:
                module = _compile(self._engine, data, path, self._cache)
            if module is not None:
                self._ready[module.key] = module

    def load(self, data: bytes, origin: str) -> Module:
        """The compiled module.  In a forked process the threads are gone that compile faster."""
        ready = self._ready.get(self._engine.key(data, PROCESS))
        if ready is not None:
            return ready
        engine = self._engine
        if os.getpid() != self._own:
            engine = engine.without_threads()
        return _compile(engine, data, origin, None if self._confined else self._cache)


def _compile(engine: Engine, data: bytes, origin: str, cache: Cache | None) -> Module:
    prepare = partial(prepare_program, origin=origin)
    return engine.compile(data, origin, cache, preparation=PROCESS, prepare=prepare)


def _granted(grants: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The files, and whether each is granted by its own name."""
    for grant in grants:
        if not os.path.isdir(grant):
            yield grant, True
            continue
        with os.scandir(grant) as listing:
            for entry, _ in zip(listing, range(_MOST), strict=False):
                if entry.is_file():
                    yield entry.path, False


def _wasm(path: str) -> bytes | None:
    """What is in a file, if that is a module."""
    try:
        with open(path, "rb") as file:
            return _MAGIC + file.read() if file.read(len(_MAGIC)) == _MAGIC else None
    except OSError:
        return None  # whoever executes it hears why
