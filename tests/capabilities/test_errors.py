"""Tests of capabilities._errors and of the problems that it carries."""

from __future__ import annotations

import copy
import pickle

import pytest

from capabilities import PolicyError, Problem

PROBLEMS = (Problem("p.toml", "limits.memory", "is wrong"), Problem("p.toml", "", "is odd"))


def test_text_is_one_line_for_each_problem() -> None:
    """An error's text names file and key of every problem."""
    assert str(PolicyError(PROBLEMS)) == "p.toml: limits.memory: is wrong\np.toml: is odd"


def test_problems_are_kept() -> None:
    """An error carries its problems as a tuple, whatever it was made of."""
    assert PolicyError(iter(PROBLEMS)).problems == PROBLEMS


def test_an_error_is_a_value_error() -> None:
    """Who catches ValueError catches it."""
    with pytest.raises(ValueError, match=r"p\.toml"):
        raise PolicyError(PROBLEMS)


def test_an_error_goes_over_to_another_process() -> None:
    """Copies and pickles of an error carry the same problems."""
    error = PolicyError(PROBLEMS)

    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 (our own)
        assert copied.problems == PROBLEMS
        assert str(copied) == str(error)
