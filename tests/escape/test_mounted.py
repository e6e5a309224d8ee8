"""A procfs that is mounted where nobody expects one."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.escape.broken import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_procfs_beneath_a_grant_is_not_opened(evil_shim: Path) -> None:
    """Neither its files, nor itself, nor one file of it that is mounted alone; all else is.

    Nor where it is mounted after the grant.
    """
    command = [sys.executable, "-m", "tests.escape.mounted", str(evil_shim)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    if not done.stdout:
        pytest.skip("this kernel allows no mounts")
    answers = json.loads(done.stdout)

    assert answers.pop("other") >= 0
    assert "procfs" in answers.pop("grant")
    assert answers.pop("later_new_file") == -errno.ENOENT
    later = "later_memory", "later_memory_beneath", "later_folder", "later_folder_by_name"
    assert answers == dict.fromkeys(("memory", "folder", "file", *later), -errno.EACCES)
