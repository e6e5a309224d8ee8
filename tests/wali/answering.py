"""A file system in user space (FUSE) with one file, which answers each ioctl with one number."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE, PAGE = 2, 4096  # the inode
LOOKUP, FORGET, GETATTR, OPEN, RELEASE, FLUSH = 1, 2, 3, 14, 18, 25
INIT, OPENDIR, RELEASEDIR, IOCTL, BATCH_FORGET = 26, 27, 29, 39, 42
HEADER, ANSWER = struct.Struct("<IIQQ16x"), struct.Struct("<IiQ")

libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def mounted(folder: Path, number: int) -> Iterator[Path]:
    """Mount it, and give its file.  ``OSError`` where that is not allowed."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    server = threading.Thread(target=serve, args=(device, number))
    try:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if libc.mount(b"answering", os.fsencode(folder), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "mount")
        server.start()
        try:
            yield folder / "file"
        finally:
            libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH: the server is told
            server.join()
    finally:
        os.close(device)


def serve(device: int, number: int) -> None:
    """Answer until nobody is there any more."""
    while True:
        try:
            data = os.read(device, 1 << 17)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return
        _, what, request, node = HEADER.unpack_from(data)
        if what not in (FORGET, BATCH_FORGET):
            body = answer(what, node, data[HEADER.size :], number)
            failure = 0 if body is not None else -errno.ENOENT if what == LOOKUP else -errno.ENOSYS
            body = body or b""
            os.write(device, ANSWER.pack(ANSWER.size + len(body), failure, request) + body)


def answer(what: int, node: int, said: bytes, number: int) -> bytes | None:
    """Say what there is; None where there is nothing (linux/fuse.h)."""
    if what == INIT:
        return struct.pack("<4I2H2I2H", 7, 31, 65536, 0, 12, 10, 65536, 1, 0, 0).ljust(64, b"\0")
    if what == LOOKUP and said == b"file\0":
        return struct.pack("<4Q2I", FILE, 0, 1, 1, 0, 0) + attributes(FILE)
    if what == GETATTR:
        return struct.pack("<QQ", 1, 0) + attributes(node)
    if what in (OPEN, OPENDIR):
        return bytes(16)
    if what == IOCTL:
        return struct.pack("<iIII", number, 0, 0, 0)
    return b"" if what in (RELEASE, RELEASEDIR, FLUSH) else None


def attributes(node: int) -> bytes:
    """Return a struct fuse_attr: a file, or the folder that it is in."""
    mode = 0o100666 if node == FILE else 0o40755
    return struct.pack("<6Q10I", node, *[0] * 8, mode, 1, *[0] * 3, PAGE, 0)
