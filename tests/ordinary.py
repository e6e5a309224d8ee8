"""An ordinary user to run things as, where the tests run as root.

He has no rights of his own, and not even a way to the checkout or to Python where those lie in a
folder of root's: he is shown them in a mount namespace, at the same paths.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534

# Arguments: the paths that he must be able to read, as one word, then the command.
_BECOME = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, BIND, REC, PRIVATE = 0x20000, 4096, 16384, 1 << 18

def checked(result, what):
    if result:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")

def mount(source, target, kind, flags, options=None):
    words = (word and word.encode() for word in (source, target, kind))
    checked(libc.mount(*words, ctypes.c_ulong(flags), options), f"mount {target}")

def blocked(path):  # the outermost folder on the way that is not for everybody, or None
    found = None
    while (path := os.path.dirname(path)) != "/":
        found = found if os.stat(path).st_mode & 1 else path
    return found

checked(libc.unshare(NEWNS), "unshare")
mount("none", "/", None, REC | PRIVATE)
needed = {path: os.open(path, os.O_PATH) for path in sys.argv[1].split(":")}
for folder in {blocked(path) for path in needed} - {None}:
    mount("none", folder, "tmpfs", 0, b"mode=755")
for path, fd in needed.items():
    if not os.path.exists(path):
        os.makedirs(path, 0o755)
        mount(f"/proc/self/fd/{fd}", path, None, BIND | REC)
    os.close(fd)
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
os.execv(sys.argv[2], sys.argv[2:])
"""


def command(words: Sequence[str | Path], *, reads: Sequence[str | Path] = ()) -> list[str]:
    """Return a command that runs another one as an ordinary user, who can reach some paths."""
    given = [str(word) for word in words]
    if os.geteuid():
        return given
    needed = [sys.base_prefix, sys.prefix, str(ROOT), *map(str, reads)]
    return [sys.executable, "-c", _BECOME, ":".join(dict.fromkeys(needed)), *given]


def run(
    words: Sequence[str | Path], home: Path, *, reads: Sequence[str | Path] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command as an ordinary user whose home is a folder that he owns (`give`)."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home)}
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "cwd": home}
    given |= options
    return subprocess.run(
        command(words, reads=[home, *reads]),
        env=environment,
        text=True,
        timeout=60,
        check=False,
        **given,
    )


def give(folder: Path) -> Path:
    """Make a folder the ordinary user's own, with all that is in it."""
    for path in (folder, *folder.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return folder
