"""What of the trusted C a WASI guest can reach: counted from the table, function by function.

A WASI guest reaches the host through its shim only, and the shim through the thunks that the
table's column ``shim`` gives it.  From those bodies the calls are followed through the text of the
C; what runs without being called (the epoch callback, the fault handler, the functions that Python
calls to make and end a guest) is counted as reached.  Declarations are no code and are not counted
here; they are in the total of ``test_tcb.py``.
"""

from __future__ import annotations

import re
import runpy
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "wali_core" / "native"
MOST_REACHABLE = 1000

# Reached by every guest, without being the body of a call.
ALWAYS = {
    "context_of",
    "on_fault",
    "stop_trap",
    "syscall6",
    "wali_async",
    "wali_context_bind",
    "wali_context_close",
    "wali_context_init",
    "wali_denied",
    "wali_descriptor_set",
    "wali_install_fault_handler",
    "wali_interrupt",
    "wali_on_epoch",
}
# What the generated bodies of plain calls use.
GENERATED = {
    "capability_component",
    "capability_link_target",
    "capability_modify",
    "capability_no_follow",
    "descriptor_at",
    "space_buffer",
    "take_string",
}


def functions_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Every function in a file: its name and its lines of code, without comments."""
    text = re.sub(
        r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), path.read_text(), flags=re.DOTALL
    )
    # In clang-format's style a definition starts in the first column and ends with "}" there.
    for match in re.finditer(
        r"^(?:BODY|EXPORT|ALWAYS|FLAT|RARE|[a-z])[^;{}=]*?\([^;{}]*\) \{\n.*?^\}",
        text,
        re.DOTALL | re.MULTILINE,
    ):
        head = match[0].partition("{")[0].replace("__attribute__((always_inline))", "")
        name = re.search(r"BODY\((\w+)\)", head) or re.search(r"(\w+)\s*\(", head)
        assert name is not None
        yield name[1], [line for line in match[0].splitlines() if line.strip()]


def reachable() -> dict[str, int]:
    """The functions that a WASI guest can reach, and how many lines each has."""
    lines: dict[str, int] = defaultdict(int)
    words: dict[str, set[str]] = defaultdict(set)
    for path in sorted(NATIVE.glob("*.[ch]")):
        for name, body in functions_of(path):  # the two processors have functions of one name
            lines[name] += len(body)
            words[name] |= set(re.findall(r"\w+", "\n".join(body))) - {name}
    table = runpy.run_path(str(ROOT / "wali_core" / "_table.py"))
    found: set[str] = set()
    waiting = {
        f"body_{call.name}"
        for call in table["CALLS"]
        if call.shim and call.served in {"body", "bodies", "waits/body"}
    }
    for_shims = (row for row in table["AUXILIARY"] if row[5] in ("own", "guest"))
    waiting |= {f"body_{row[4]}" for row in for_shims} | ALWAYS | GENERATED
    assert waiting <= lines.keys(), waiting - lines.keys()
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= (words[name] & lines.keys()) - found
    return {name: lines[name] for name in found}


def test_reachable_from_wasi_is_small(report_figure: Callable[[str], None]) -> None:
    """A WASI guest reaches at most a thousand lines of hand-written C."""
    total = sum(reachable().values())
    report_figure(f"reachable from WASI: {total} of {MOST_REACHABLE} lines of hand-written C")

    assert 0 < total <= MOST_REACHABLE


def test_what_only_wali_programs_call_is_not_counted() -> None:
    """The count follows the table: a body that no shim may have is not in it."""
    names = reachable()

    assert "body_openat2" in names
    assert "body_dup2" not in names
