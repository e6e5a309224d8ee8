"""Tests of wali_core._errors: one tree, whose leaves are what callers would catch already."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

import wali_core
from wali_core import (
    CompletedGuest,
    GuestDenied,
    GuestError,
    GuestExit,
    GuestFailed,
    GuestLimit,
    GuestTimeout,
    GuestTrap,
    ModuleError,
    PolicyError,
    UnsupportedPlatform,
    UseError,
    WaliError,
    _errors,
)

ERRORS = [
    GuestError("it ended"),
    GuestExit(3),
    GuestFailed(CompletedGuest("m", ("a",), 3, b"out", b"err")),
    GuestTimeout(0.5),
    GuestDenied("fork"),
    GuestLimit("output", "the guest wrote more output than its limit allows"),
    GuestTrap("unreachable", ("inner", "outer")),
    ModuleError("no module"),
    PolicyError("not granted"),
    UnsupportedPlatform("no Linux"),
    UseError("closed"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_one_root_catches_all(error: WaliError) -> None:
    """Every error of this library is a WaliError."""
    with pytest.raises(WaliError):
        raise error


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (UnsupportedPlatform, ImportError),
        (ModuleError, ValueError),
        (PolicyError, ValueError),
        (UseError, RuntimeError),
        (GuestTimeout, TimeoutError),
    ],
)
def test_errors_are_what_callers_know(error: type[WaliError], builtin: type[Exception]) -> None:
    """An error is also the builtin one that says the same."""
    assert issubclass(error, builtin)


def test_ends_of_guests_are_told_apart() -> None:
    """How a guest ended is its own branch: no mistake of the caller's is in it."""
    ends = {kind for kind in vars(_errors).values() if inspect.isclass(kind)}

    assert {kind for kind in ends if issubclass(kind, GuestError)} == {
        GuestDenied,
        GuestError,
        GuestExit,
        GuestLimit,
        GuestTimeout,
        GuestTrap,
    }


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", ["copy", "pickle"])
def test_errors_travel(error: WaliError, way: str) -> None:
    """An error comes out of another process, or of a copy, as it went in."""
    if isinstance(error, GuestError):
        error.stdout = b"until then"

    other = copy.copy(error) if way == "copy" else pickle.loads(pickle.dumps(error))  # noqa: S301

    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


def test_ends_say_what_there_is_to_say() -> None:
    """An end carries its figures, and a line of text."""
    assert (GuestExit(3).status, str(GuestExit(3))) == (3, "the guest exited with status 3")
    assert (GuestTimeout(90).seconds, str(GuestTimeout(90))) == (
        90,
        "the guest was stopped after its 90 s (wall_time)",
    )
    assert GuestTrap("why").frames == ()
    assert (GuestError("x").stdout, GuestError("x").stderr) == (None, None)


def test_the_tree_is_drawn_as_it_is() -> None:
    """The drawing at the top of the module has each class under the one that it derives from."""
    drawing = inspect.getdoc(_errors) or ""
    above: list[str] = []
    for indent, name in re.findall(r"^ *([│├└─ ]*)\b([A-Z]\w+)\b", drawing, re.MULTILINE):
        if name not in vars(_errors):
            continue
        depth = len(indent) // 4
        kind = getattr(_errors, name)
        if depth:
            assert issubclass(kind, getattr(_errors, above[depth - 1])), name
        above[depth:] = [name]
    drawn = set(re.findall(r"\b[A-Z]\w+\b", drawing))

    defined = {kind.__name__ for kind in vars(_errors).values() if inspect.isclass(kind)}
    assert defined <= drawn
    assert defined <= set(wali_core.__all__)
