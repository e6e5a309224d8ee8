"""Tests of the public names: each is there once, is its module's, and costs nothing unused."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import wali_core

SOURCE = Path(wali_core.__file__).read_text()


def test_all_is_sorted_and_without_repetition() -> None:
    """Public names are listed once, in order."""
    assert wali_core.__all__ == sorted(set(wali_core.__all__))


@pytest.mark.parametrize("name", wali_core.__all__)
def test_public_names_can_be_imported(name: str) -> None:
    """A public name is the object of the private module that it lives in, documented."""
    value = getattr(wali_core, name)

    home = importlib.import_module(f"wali_core.{wali_core._HOMES[name]}")
    assert getattr(home, name) is value
    assert value.__module__ == home.__name__
    assert value.__doc__


def test_type_checkers_see_the_same_names() -> None:
    """What is imported for type checkers is exactly what is public, from the same modules."""
    found = re.findall(r"    from wali_core\.([\w.]+) import (\w+) as (\w+)$", SOURCE, re.MULTILINE)

    assert all(name == again for _, name, again in found)
    assert {name: home for home, name, _ in found} == wali_core._HOMES
    assert set(wali_core.__all__) == wali_core._HOMES.keys()


def test_other_names_are_not_there() -> None:
    """A name that is not public is an AttributeError that says so."""
    with pytest.raises(AttributeError, match="module 'wali_core' has no attribute 'frobnicate'"):
        _ = wali_core.frobnicate


def test_nothing_is_imported_before_it_is_used() -> None:
    """Importing the package imports none of its modules."""
    code = "import sys, wali_core; print(*[m for m in sys.modules if m.startswith('wali')])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "wali_core\n"


def test_a_star_import_gives_the_public_names() -> None:
    """`from wali_core import *` gives what is public, and nothing else."""
    code = (
        "before = {*vars(), 'before'}\nfrom wali_core import *\nprint(*sorted({*vars()} - before))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == wali_core.__all__


@pytest.mark.parametrize("package", [".", "processes", "programs", "rewriting", "tasks"])
def test_every_module_is_on_the_map(package: str) -> None:
    """The map at the top of a package names every module in it, and none that is not there."""
    folder = Path(wali_core.__file__).parent / package
    there = {path.name for path in folder.glob("*.py")} - {"__init__.py", "__main__.py"}
    its_map = (folder / "__init__.py").read_text().partition("Nothing is")[0]

    assert set(re.findall(r"\b\w+\.py\b", its_map)) == there
