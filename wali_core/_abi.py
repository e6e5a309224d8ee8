"""Which interface a module was made for, and who serves it.

A shim is a Wasm module that offers an interface on top of ``wali`` and ``wali_guest``.  The core
knows shims by the import modules that they serve and never imports one by name in its code: the
usual one is looked up here, others by the entry point group ``wali.abi``.
"""

from __future__ import annotations

import sys

from wali_core._errors import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from wali_core._engine import Module

    class Shim(Protocol):
        """What a provider offers as ``abi``."""

        modules: Mapping[str, str]
        """Import modules served, each with a prefix that an export with another meaning carries."""

        def path(self) -> str:
            """The path of the compiled shim."""

        def configuration(
            self,
            args: Sequence[bytes],
            env: Sequence[bytes],
            preopens: Sequence[tuple[int, bytes, bool]],
            datagrams: Sequence[int] = (),
            *,
            strict: bool,
            clock: tuple[str, int] = ("host", 0),
            seed: int | None = None,
        ) -> bytes:
            """What the shim is told through ``wasi_allocate`` and ``wasi_configure``.

            ``datagrams``: which descriptors are sockets for those.
            ``strict``: rights that a guest does not ask for it does not get.  ``clock``: where its
            time comes from, and the time of day, in ns since 1970, at which one that is not the
            host's begins.  ``seed``: what all random bytes follow from, if not from the kernel.
            """


WALI = "wali"
START_EXPORT = "__wali_start"
"""The name under which a prepared module exports what was its start function."""
FLAG_EXPORT = "__wali_flag"
POLLED_EXPORT = "__wali_polled"
"""A memory whose first word a program polls, and a table with what it calls when that is not 0."""
ATOMICS_EXPORT = "__wali_atomics"
"""A table with what a program waits by that has WebAssembly's instructions for that."""
LIMIT_EXPORT = "__wali_limit_memory"
EXCEEDED_EXPORT = "__wali_memory_exceeded"
"""Functions of a prepared module: the first takes the most pages that its memory may have, 0 for no
limit but its own, the second says 1 when more was wanted.
"""
ROOM_EXPORT = "wasi_room"
ROOM = 1024
"""A constant that a shim may export: where so many bytes lie that a configuration may have."""
_WASI = ("wasi_snapshot_preview1", "wasi_unstable")
_KNOWN = dict.fromkeys(_WASI, "wasi_shim")  # found without reading every distribution's metadata


def interface_of(module: Module) -> str | None:
    """The one interface that a module imports: ``"wali"``, a WASI module's name, or None.

    Raises ``ModuleError`` where it imports anything else, or two interfaces: a WASI guest that
    could also name raw system calls would not be confined by the shim.
    """
    if module.interface == "":
        module.interface = _only_interface(module)
    return module.interface


def _only_interface(module: Module) -> str | None:
    names = sorted(module.import_modules, key=lambda name: (name != WALI, name))
    servers = [_server(name) for name in names]
    if None in servers:
        unknown = names[servers.index(None)]
        example = next(item.name for item in module.imports if item.module == unknown)
        raise ModuleError(
            f"{module.origin}: imports {unknown}.{example}: wali serves only the modules "
            f"{', '.join(_WASI)} and {WALI}"
        )
    for name, server in zip(names, servers, strict=True):
        if server != servers[0]:
            raise ModuleError(
                f"{module.origin}: imports both {names[0]} and {name}: "
                "a module may use one of them only"
            )
    return names[0] if names else None


def _server(name: str) -> str | None:
    """The package that serves an import module; the core's own name for its own."""
    if name == WALI or name in _KNOWN:
        return _KNOWN.get(name, WALI)
    from importlib.metadata import entry_points

    for point in entry_points(group="wali.abi", name=name):
        return point.value.partition(":")[0]
    return None


def shim_for(name: str) -> Shim:
    """The provider for an import module.  Raises ``ModuleError`` where it is not installed."""
    provider = _server(name)
    try:
        __import__(provider or "")
        shim: Shim = sys.modules[provider or ""].abi
    except (ImportError, AttributeError, ValueError) as error:
        raise ModuleError(
            f"nothing installed serves {name}: the package {provider} is missing or not whole "
            f"({error})"
        ) from error
    return shim
