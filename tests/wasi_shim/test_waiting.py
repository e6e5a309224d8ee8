"""Tests of how the shim waits where guests share a thread."""

from __future__ import annotations

import re
from pathlib import Path

from wali_core._table import CALLS, WAITS

HEADER = Path(__file__).parents[2] / "wasi_shim" / "src" / "wali.h"


def test_every_call_that_can_wait_is_made_again() -> None:
    """A call that answers SUSPENDED must not be taken for one that has ended."""
    defined = r"^#define (\w+)\(\.\.\.\) WAITING\(\1\("
    made_again = set(re.findall(defined, HEADER.read_text(), re.MULTILINE))
    prefixes = {"own": "sys", "guest": "guest"}
    can_wait = {
        f"{prefixes[space]}_{call.name}"
        for call in CALLS
        if call.name in WAITS
        for space in call.shim.split()
    }

    assert made_again == can_wait
