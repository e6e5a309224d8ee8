"""Tests of capabilities.lockdown.rlimits."""

from __future__ import annotations

import pytest

from capabilities import LockdownError
from capabilities.lockdown import rlimits
from tests.capabilities.confined import run

SCRIPT = "import os, resource\nfrom capabilities.lockdown import rlimits\n"


def limits(statements: str, *names: str) -> list[str]:
    """Run statements in a process of their own, and return its limits then: soft and hard."""
    shown = "; ".join(f"print(*resource.getrlimit(resource.RLIMIT_{name}))" for name in names)
    return run(f"{SCRIPT}{statements}\n{shown}").splitlines()


def test_core_dumps_are_off() -> None:
    """Without a word there are no core dumps, and all else stays as it was."""
    others = ("NOFILE", "FSIZE", "NPROC", "CPU")

    assert limits("rlimits.lower()", "CORE") == ["0 0"]
    assert limits("rlimits.lower()", *others) == limits("", *others)


def test_limits_are_lowered() -> None:
    """Each limit is set, soft and hard."""
    statement = (
        "rlimits.lower(core=1, open_files=50, file_size=60, processes=70, cpu_time=80)\n"
        "rlimits.lower(core=None, open_files=40)"
    )

    assert limits("resource.setrlimit(resource.RLIMIT_CORE, (9, 9))\n" + statement, "CORE") == [
        "1 1"
    ]
    assert limits(statement, "NOFILE", "FSIZE", "NPROC", "CPU") == [
        "40 40",
        "60 60",
        "70 70",
        "80 80",
    ]


def test_limits_are_never_raised() -> None:
    """A limit that is tighter stays, soft or hard."""
    before = "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 30))\n"

    assert limits(f"{before}rlimits.lower(open_files=25)", "NOFILE") == ["20 25"]
    assert limits(f"{before}rlimits.lower(open_files=99)", "NOFILE") == ["20 30"]


def test_descriptors_run_out() -> None:
    """A process does not open more than it may."""
    code = """
rlimits.lower(open_files=16)
try:
    [os.dup(1) for _ in range(17)]
except OSError as error:
    print(error)
"""

    assert run(SCRIPT + code) == "[Errno 24] Too many open files\n"


@pytest.mark.parametrize(
    ("limit", "reason"), [(-1, "it must not be negative"), (1 << 80, "Python int too large")]
)
def test_what_is_no_limit(limit: int, reason: str) -> None:
    """Nothing can be lowered to what would be no limit, or to what is no limit at all."""
    with pytest.raises(LockdownError, match=f"RLIMIT_CPU cannot be lowered to {limit}: {reason}"):
        rlimits.lower(core=None, cpu_time=limit)
