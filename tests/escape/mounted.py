"""A procfs, and a file of one, mounted in the box, in a mount namespace of this process's own.

Run as a module with the path of the evil shim, this one prints what its guest is answered, as JSON;
or nothing, where the kernel does not allow it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.escape.evil import BOX, EvilHost, World
from wali_core import PolicyError, _bridge

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000


libc = ctypes.CDLL(None, use_errno=True)


def mount_procfs(folder: Path, file: Path) -> bool:
    """Mount them over a folder and a file that are there.  False where that is not allowed."""
    if libc.unshare(CLONE_NEWNS) and libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        return False
    if libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        return False
    if libc.mount(b"/proc", os.fsencode(folder), None, MS_BIND | MS_REC, None):
        return False
    return not libc.mount(b"/proc/self/status", os.fsencode(file), None, MS_BIND, None)


def answers(shim: Path, world: World) -> dict[str, int | str]:
    """What a guest of the evil shim is answered that holds the box."""
    host = EvilHost(shim, _bridge.core)
    found: dict[str, int | str] = {}
    with host.enter(world) as evil:
        found["memory"] = evil.openat2(BOX, b"empty/self/mem", os.O_RDWR)
        found["folder"] = evil.call("openat", BOX, b"empty", os.O_PATH | os.O_DIRECTORY, 0)
        found["file"] = evil.call("openat", BOX, b"file", os.O_RDONLY, 0)
        found["other"] = evil.call("openat", BOX, b"dir", os.O_RDONLY, 0)
    try:
        host.runtime.instantiate(host.guest, dirs={"/p": (str(world.box / "empty"), "ro")})
    except PolicyError as error:
        found["grant"] = str(error)
    return found


def later_answers(shim: Path, world: World) -> dict[str, int]:
    """... when it is mounted only after the box has been granted."""
    host = EvilHost(shim, _bridge.core)
    found = {}
    with host.enter(world) as evil:
        folder = evil.openat2(BOX, b"dir", os.O_PATH | os.O_DIRECTORY)
        for path in (world.box / "empty", world.box / "dir" / "p"):
            path.mkdir(exist_ok=True)
            assert not libc.mount(b"/proc", os.fsencode(path), None, MS_BIND | MS_REC, None)
        found["later_memory"] = evil.openat2(BOX, b"empty/self/mem", os.O_RDWR)
        found["later_memory_beneath"] = evil.openat2(folder, b"p/self/mem", os.O_RDWR)
        found["later_folder"] = evil.openat2(BOX, b"empty/self", os.O_PATH | os.O_DIRECTORY)
        found["later_folder_by_name"] = evil.call("openat", BOX, b"empty", os.O_PATH, 0)
        found["later_new_file"] = evil.openat2(BOX, b"empty/x", os.O_CREAT | os.O_RDWR)
    return found


def main() -> None:
    """Mount, attack, print."""
    with tempfile.TemporaryDirectory() as name:
        world, later = World(Path(name) / "world"), World(Path(name) / "later")
        if mount_procfs(world.box / "empty", world.box / "file"):
            found = answers(Path(sys.argv[1]), world)
            json.dump(found | later_answers(Path(sys.argv[1]), later), sys.stdout)
            sys.stdout.flush()
            # The mounts go with this process: only then can the folder be removed.
            mounts = (world.box / "empty", world.box / "file", later.box / "empty")
            for path in (*mounts, later.box / "dir" / "p"):
                libc.umount2(os.fsencode(path), 2)


if __name__ == "__main__":
    main()
