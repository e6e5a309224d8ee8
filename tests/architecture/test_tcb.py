"""The trusted base stays small: what is hand-written C in `wali_core/` is counted, and has a limit.

Counted are lines that hold code, in `*.c` and `*.h`: no blank lines, no comments, nothing generated
(`*.gen.*`, thunks that the table becomes at build time).  The Python that confines a guest's
process before it runs is counted as well, by itself: it is trusted, but no guest reaches it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 2000
MOST_LINES_OF_LOCKDOWN = 1500
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


def python_lines(text: str) -> int:
    """Return how many lines of Python hold code: no comments, no docstrings."""
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            del node.body[0]
    lines = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.expr | ast.stmt | ast.arg | ast.alias)
        for line in (node.lineno, node.end_lineno)
    }
    return len(lines)


def test_what_confines_is_small(report_figure: Callable[[str], None]) -> None:
    """What builds views and rules is host code that runs before the guest: Python, and not much."""
    lockdown = sorted((ROOT / "capabilities" / "lockdown").glob("*.py"))
    files = [*lockdown, *(ROOT / "wali_core" / f"_{name}.py" for name in ("confine", "filter"))]
    lines = sum(python_lines(path.read_text()) for path in files)
    report_figure(
        f"before the guest: {lines} of {MOST_LINES_OF_LOCKDOWN} lines of Python that confine it"
    )

    assert 0 < lines <= MOST_LINES_OF_LOCKDOWN


def test_docstrings_and_comments_of_python_do_not_count() -> None:
    """Only statements and what they are made of are counted."""
    text = '"""It."""\n\n# A comment.\ndef f(\n    a,\n    b,\n):\n    """Do."""\n    return a\n'

    assert python_lines(text) == 4


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
