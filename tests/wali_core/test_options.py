"""Tests of wali_core._options: what is read of a command line, and where reading stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wali_core._options import SWITCH, VALUE, VALUES, OptionError, parse

KINDS = {"dir": VALUES, "timeout": VALUE, "all": SWITCH}


@pytest.mark.parametrize(
    ("line", "timeout", "dirs", "switch", "rest"),
    [
        ("", None, [], False, []),
        ("FILE", None, [], False, ["FILE"]),
        ("FILE --timeout 1", None, [], False, ["FILE", "--timeout", "1"]),
        ("--timeout 1 FILE", "1", [], False, ["FILE"]),
        ("--timeout=1 FILE", "1", [], False, ["FILE"]),
        ("--timeout= FILE", "", [], False, ["FILE"]),
        ("--timeout --all FILE", "--all", [], False, ["FILE"]),
        ("--dir a --all --dir=b=c FILE x", None, ["a", "b=c"], True, ["FILE", "x"]),
        ("--all --all", None, [], True, []),
        ("--all -- --timeout 1", None, [], True, ["--timeout", "1"]),
        ("-- --", None, [], False, ["--"]),
        ("- --all", None, [], False, ["-", "--all"]),
    ],
)
def test_options_end_at_the_first_other_word(
    line: str, timeout: str | None, dirs: list[str], rest: list[str], *, switch: bool
) -> None:
    """Options are read in both their forms, up to the program's name; the rest is the program's."""
    options = parse(line.split(), KINDS)

    assert options["timeout"] == timeout
    assert options.all("dir") == dirs
    assert ("all" in options) == switch
    assert options.rest == rest


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--dirs x", r"unknown option --dirs: did you mean --dir\?"),
        ("--timeuot=1", r"unknown option --timeuot=1: did you mean --timeout\?"),
        ("--xyzzy", "unknown option --xyzzy$"),
        ("-a", "unknown option -a$"),
        ("-timeout 1", r"unknown option -timeout: did you mean --timeout\?"),
        ("--=x", "unknown option --=x"),
        ("--dir", "--dir needs a value"),
        ("--all=", "--all takes no value"),
        ("--timeout 1 --timeout 1", "--timeout is given twice"),
    ],
)
def test_what_is_not_understood_is_named(line: str, message: str) -> None:
    """An option that is unknown, incomplete or repeated is named, with the one that was meant."""
    with pytest.raises(OptionError, match=message):
        parse(line.split(), KINDS)


@given(words=st.lists(st.sampled_from(["--dir", "--dir=a", "--all", "--timeout", "--", "-", "x"])))
def test_no_word_is_lost(words: list[str]) -> None:
    """Whatever the words are, each is an option, a value or left for the program, in order."""
    try:
        options = parse(words, KINDS)
    except OptionError:
        return
    if options.rest:
        assert words[-len(options.rest) :] == options.rest


@given(rest=st.lists(st.text()))
def test_the_programs_words_are_not_looked_at(rest: list[str]) -> None:
    """After the program's name, or two hyphens, any words are the program's."""
    assert parse(["--all", "FILE", *rest], KINDS).rest == ["FILE", *rest]
    assert parse(["--all", "--", *rest], KINDS).rest == rest
