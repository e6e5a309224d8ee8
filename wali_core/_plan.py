"""What a guest is started with, whichever way it is started."""

from __future__ import annotations

from wali_core import _abi
from wali_core._errors import ModuleError, PolicyError
from wali_core._grants import encoded
from wali_core._passes import PROCESS, SHARED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wali_core._engine import Module
    from wali_core._grants import Grants
    from wali_core._stdio import Given, Streams


class Plan:
    """A guest that is to be: its module, what it is granted and told, and its streams.

    ``args`` follow ``argv0``, which is the module's name if it is None.  Where a WALI program runs
    is said by ``isolation``.
    """

    __slots__ = ("args", "argv0", "grants", "isolation", "module", "streams")

    def __init__(
        self,
        module: Module,
        grants: Grants,
        streams: Given | Streams,
        *,
        args: Sequence[str | bytes] = (),
        argv0: str | bytes | None = None,
        isolation: str = PROCESS,
    ) -> None:
        self.module, self.grants, self.streams = module, grants, streams
        self.args, self.argv0, self.isolation = args, argv0, isolation

    @property
    def interface(self) -> str | None:
        """Which interface its module imports: ``_abi.interface_of``."""
        return _abi.interface_of(self.module)

    @property
    def is_wali(self) -> bool:
        """Is it a WALI program?"""
        return self.interface == _abi.WALI

    @property
    def has_process(self) -> bool:
        """Is it one that gets a process of its own?"""
        return self.is_wali and self.isolation == PROCESS

    def command_line(self) -> tuple[list[bytes], list[bytes]]:
        """What it is told: its arguments, its name first, and its environment."""
        if isinstance(self.args, (str, bytes)):
            raise TypeError(f"args: {self.args!r} is one string: give a list of them")
        argv0 = self.module.origin if self.argv0 is None else self.argv0
        pairs = (f"{name}={value}" for name, value in self.grants.env.items())
        return encoded((argv0, *self.args), "argument"), encoded(pairs, "environment variable")

    def refuse_process(self, way: str) -> None:
        """Raise ``ModuleError`` for a program that gets a process: it cannot be called from here.

        ``way`` is the method that runs it.
        """
        if self.has_process:
            raise ModuleError(
                f"{self.module.origin}: a WALI program, which has a process of its own: use {way}, "
                f"or isolation={SHARED!r} if you trust it with this one"
            )

    def refuse_library(self) -> None:
        """Raise ``ModuleError`` for a module that is no whole program."""
        if self.module.is_program:
            return
        way = "use instantiate and call, or wali run --invoke"
        if self.is_wali:
            way = f"use instantiate and call, with isolation={SHARED!r}, if you trust it"
        raise ModuleError(
            f"{self.module.origin}: no _start without parameters: a library, not a program; {way}"
        )

    def refuse_wasi_only(self) -> None:
        """Raise ``PolicyError`` where a WALI program is granted what only WASI has."""
        origin, grants = self.module.origin, self.grants
        if grants.sockets:
            raise PolicyError(
                f"{origin}: a WALI program, which makes its sockets itself: only WASI programs "
                "are given some"
            )
        if grants.strict_rights:
            raise PolicyError(
                f"{origin}: a WALI program, whose descriptors have no rights: strict rights are "
                "for WASI programs"
            )
        for key, given in (("clock", grants.clock), ("random", grants.seed)):
            if given is not None:
                raise PolicyError(
                    f"{origin}: a WALI program, which has the host's: {key}.source is for WASI "
                    "programs"
                )
