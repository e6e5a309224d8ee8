"""What the host must know of the shim: where it is, what it serves, how it is configured.

This lies on the start-up path of every WASI guest, so it imports next to nothing.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

ALLOCATE: Final = "wasi_allocate"
"""Export ``(i32 size) -> i32 address``: memory for the configuration, 0 if there is none."""

CONFIGURE: Final = "wasi_configure"
"""Export ``(i32 address, i32 size) -> i32``: takes the configuration over. 0, or Linux's errno."""

REFUSED_WRITES: Final = "wasi_refused_writes"
"""Export ``() -> i32``: how many writes a read-only preopen has refused."""

MEMORY: Final = "memory"
"""Export: the shim's own memory."""

_VERSION = 2
_STRICT_RIGHTS = 1 << 0
_MANUAL_WALK = 1 << 1
_SEEDED = 1 << 2
_CLOCKS: Final = ("host", "virtual", "fixed")
_READ_ONLY = 1 << 0
_DATAGRAM = 1 << 1
_HEADER = struct.Struct("<8I2Q")
_PREOPEN = struct.Struct("<3I")


class WasiAbi:
    """WASI preview1, served by one Wasm module on top of ``wali``."""

    modules: Mapping[str, str] = {"wasi_snapshot_preview1": "", "wasi_unstable": "unstable_"}
    """Import modules served. An export of that prefix and the function's name is taken first."""

    def path(self) -> str:
        """The path of the compiled shim.

        Raises:
            FileNotFoundError: it has not been built.
        """
        path = os.path.join(os.path.dirname(__file__), "shim.wasm")
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"{path} has not been built: run `pip install .`, or in a checkout "
                "`python wali_core/native/compile.py`"
            )
        return path

    def configuration(
        self,
        args: Sequence[bytes],
        env: Sequence[bytes],
        preopens: Sequence[tuple[int, bytes, bool]],
        datagrams: Sequence[int] = (),
        *,
        strict: bool = False,
        manual_walk: bool = False,
        clock: tuple[str, int] = ("host", 0),
        seed: int | None = None,
    ) -> bytes:
        """What the shim is told before its guest starts.

        Args:
            args: argv, the program's name first.
            env: ``NAME=value`` each.
            preopens: a directory's descriptor, its name for the guest, and whether it is read-only.
            datagrams: the descriptors that are sockets for datagrams: what a socket is for, the
                shim cannot ask.
            strict: rights that are not asked for at ``path_open`` are not granted.
            manual_walk: resolve paths as on a kernel without ``openat2``.
            clock: ``"host"``, or ``"virtual"`` or ``"fixed"`` and the time of day, in nanoseconds
                since 1970, at which the one begins and the other stands still.
            seed: a number of 64 bits from which all random bytes follow; None for the kernel's.

        Raises:
            ValueError: a string holds a NUL, which would end it early.
        """
        argv, environ = _block(args, "argument"), _block(env, "environment variable")
        flags = (_STRICT_RIGHTS if strict else 0) | (_MANUAL_WALK if manual_walk else 0)
        flags |= 0 if seed is None else _SEEDED
        header = _HEADER.pack(
            *(_VERSION, len(args), len(argv), len(env), len(environ)),
            *(len(preopens) + len(datagrams), flags),
            *(_CLOCKS.index(clock[0]), clock[1], seed or 0),
        )
        parts = [_padded(header + argv + environ)]
        for fd, name, read_only in preopens:
            head = _PREOPEN.pack(fd, _READ_ONLY if read_only else 0, len(name))
            parts.append(_padded(head + name))
        parts += [_PREOPEN.pack(fd, _DATAGRAM, 0) for fd in datagrams]
        return b"".join(parts)


def _block(strings: Sequence[bytes], what: str) -> bytes:
    """The strings back to back, each ended by a NUL."""
    for string in strings:
        if b"\0" in string:
            raise ValueError(f"{what} {string!r} holds a NUL")
    return b"".join(string + b"\0" for string in strings)


def _padded(data: bytes) -> bytes:
    """The shim reads words: everything but strings begins at a multiple of four."""
    return data + bytes(-len(data) % 4)
