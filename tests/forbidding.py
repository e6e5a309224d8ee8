"""Running something where calls are forbidden, as container runtimes do: they answer EPERM."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ON_X86_64 = os.uname().machine == "x86_64"
UNSHARE = 272 if _ON_X86_64 else 97
PIVOT_ROOT = 155 if _ON_X86_64 else 41
MOUNT_SETATTR = 442
LANDLOCK = 444  # landlock_create_ruleset

# Arguments: the numbers of the calls, as one word, then the command.
_FORBID = """
import os, sys
from capabilities.lockdown import privileges, seccomp
forbidden = {int(number) for number in sys.argv[1].split(",")}
allowed = [seccomp.Rule("", number, "") for number in range(500) if number not in forbidden]
privileges.no_new_privileges()
seccomp.install(seccomp.compile(allowed))
os.execv(sys.argv[2], sys.argv[2:])
"""


def command(words: Sequence[str | Path], *numbers: int) -> list[str]:
    """Return a command that runs another one without some system calls."""
    forbidden = ",".join(map(str, numbers))
    return [sys.executable, "-c", _FORBID, forbidden, *map(str, words)]
