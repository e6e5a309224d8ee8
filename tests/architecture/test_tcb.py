"""The trusted base stays small: what is hand-written C in `wali_core/` is counted, and has a limit.

Counted are lines that hold code, in `*.c` and `*.h`: no blank lines, no comments, nothing generated
(`*.gen.*`, thunks that the table becomes at build time).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 2000
MOST_COLUMNS = 100

# A string or a character constant (kept), or a comment (dropped): the first to start wins, so that
# "//" in a string is no comment, and a quote in a comment opens no string.
STRING_OR_COMMENT = re.compile(
    r"""(?P<kept>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|//[^\n]*|/\*.*?\*/""", re.DOTALL
)


def trusted_sources() -> list[Path]:
    """Return the hand-written C files of the core."""
    files = (ROOT / "wali_core").rglob("*.[ch]")
    return sorted(path for path in files if ".gen." not in path.name)


def code_lines(text: str) -> int:
    """Return how many lines of C hold code."""

    def replace(match: re.Match[str]) -> str:
        return match["kept"] or "\n" * match[0].count("\n")

    return sum(1 for line in STRING_OR_COMMENT.sub(replace, text).splitlines() if line.strip())


def count(paths: Iterable[Path]) -> int:
    """Return how many lines of code the files hold together."""
    return sum(code_lines(path.read_text()) for path in paths)


def test_trusted_base_is_small(report_figure: Callable[[str], None]) -> None:
    """Hand-written C in `wali_core/` stays within its limit."""
    lines = count(trusted_sources())
    report_figure(f"trusted base: {lines} of {MOST_LINES} lines of hand-written C in wali_core/")

    assert 0 < lines <= MOST_LINES


def test_lines_are_not_stretched_to_fit_the_count() -> None:
    """No line of the trusted C is wider than the formatter's limit."""
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in trusted_sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > MOST_COLUMNS
    ]

    assert not wide


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", 0),
        ("\n  \n// note\n/* one */ // two\n", 0),
        ("int a; // note\n", 1),
        ("/* over\n * lines\n */\nint a;\n", 1),
        ("int a; /* over\nlines */ int b;\n", 2),
        ('const char *a = "/* no comment";\nint b; /* a comment */\n', 2),
        ("// a \" quote\nint a;\nchar b = '\"'; // and another\n", 2),
        ('puts("a \\" // b");\n', 1),
    ],
)
def test_comments_and_blanks_do_not_count(text: str, lines: int) -> None:
    """Only lines with code on them are counted."""
    assert code_lines(text) == lines
