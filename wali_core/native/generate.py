"""Generate the core's thunks from the table: ``thunks.gen.c`` and ``numbers.gen.h``.

Run by the build (``compile.py``); the output is never committed and holds no logic of its own:
every check that it makes is a call of a function in the handwritten C.
"""

from __future__ import annotations

import re
import runpy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# Calls that have no body in C: not served yet, or served by Python.
NO_BODY = ("planned", "host")

# Kinds of which a shim may use the lowest values only.
CAPABLE_ONLY = {"exchange": 3, "clock": "CLOCKS_OF_ONES_OWN", "mode": 0o777}

BANNER = "/* Made by generate.py from _table.py: change those. */\n"


class Argument:
    """What one argument of a plain thunk needs: statements before the call, and a value."""

    def __init__(self, index: int, kind: str, previous: str = "") -> None:
        self.before: list[str] = []
        value = f"a[{index}]"
        kind, modifies = kind.rstrip("!"), kind.endswith("!")
        if kind in ("fd", "dirfd"):
            self._descriptor(index, kind, modifies=modifies)
        elif kind in ("path", "target"):
            self._string(index, kind)
            if previous.startswith("dirfd"):
                self.before += [
                    f"if (needs_directory(h{index - 1}, p{index}, capable))",
                    "    return -EBADF;",
                ]
        elif kind.startswith("mem"):
            size = kind[4:-1] if kind.startswith("mem[") else f"a[{kind[4:]}].u32"
            self.before = [
                f"uint8_t *p{index} = space_buffer(c, s, {value}.u32, {size});",
                f"if (p{index} == WALI_BAD)",
                "    return -EFAULT;",
            ]
            self.value = f"p{index}"
        elif kind == "at":
            self.value = f"(capable ? capability_no_follow({value}.i32) : {value}.i32)"
        elif kind in CAPABLE_ONLY:
            self.before = [
                f"if (capable && {value}.u32 > {CAPABLE_ONLY[kind]})",
                "    return -EINVAL;",
            ]
            self.value = f"{value}.u32"
        elif kind == "zero":
            self.before = [f"if (capable && {value}.i32)", "    return -EPERM;"]
            self.value = f"{value}.i32"
        else:
            self.value = f"{value}.{ {'int': 'i32', 'uint': 'u32', 'long': 'i64'}[kind] }"

    def _descriptor(self, index: int, kind: str, *, modifies: bool) -> None:
        fallback = (
            f"!capable && a[{index}].i32 == AT_FDCWD ? c->cwd : -1" if kind == "dirfd" else "-1"
        )
        self.before = [
            f"struct descriptor *d{index} = descriptor_at(c, a[{index}].i32);",
            f"int32_t h{index} = d{index} ? d{index}->host : {fallback};",
            f"if (h{index} == NO_DIRECTORY" + (" && capable)" if kind == "dirfd" else ")"),
            "    return -EBADF;",
        ]
        if modifies:
            self.before += [
                f"if (capable && (r = capability_modify(c, d{index})) < 0)",
                "    return r;",
            ]
        self.value = f"h{index}"

    def _string(self, index: int, kind: str) -> None:
        check = "capability_component" if kind == "path" else "capability_link_target"
        self.before = [
            f"char p{index}[PATH_MAX];",
            f"if ((r = copy_string(c, s, a[{index}].u32, p{index}, sizeof p{index})) < 0)",
            "    return r;",
            f"if (capable && (r = {check}(p{index})) < 0)",
            "    return r;",
        ]
        self.value = f"p{index}"


def plain_body(call: Any) -> str:
    """The whole body of a call whose arguments say all that there is to check."""
    kinds = call.arguments.split()
    arguments = [Argument(i, k, kinds[i - 1] if i else "") for i, k in enumerate(kinds)]
    before = [line for argument in arguments for line in argument.before]
    values = [argument.value for argument in arguments] + ["0"] * (6 - len(arguments))
    uses_r = any("(r = " in line for line in before)
    lines = ["(void)c, (void)s, (void)a, (void)capable;"]
    lines += ["int64_t r;"] if uses_r else []
    lines += [*before, f"return SYS(NR_{call.name}, {', '.join(values)});"]
    return definition(call.name, lines)


def forwarding_body(call: Any) -> str:
    """A call that is made from another: ``= other(AT_FDCWD, $0, 0)``."""
    match = re.fullmatch(r"= (\w+)\((.*)\)", call.served)
    if match is None:
        raise ValueError(f"_table.py: {call.name}: cannot read {call.served!r}")
    values = [
        f"a[{word[1:]}]" if word.startswith("$") else f"{{.i64 = {word}}}"
        for word in match[2].split(", ")
    ]
    return definition(
        call.name,
        [
            "(void)a;",
            f"const wasmtime_val_raw_t b[] = {{{', '.join(values)}}};",
            f"return body_{match[1]}(c, s, b, capable);",
        ],
    )


def definition(name: str, lines: list[str]) -> str:
    """A body from its lines."""
    return f"BODY(body_{name}) {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


def thunks(table: dict[str, Any], arch: str) -> str:
    """The text of ``thunks.gen.c``."""
    calls, signature = table["CALLS"], table["signature"]
    out = [BANNER, '#include "core.h"\n\n']
    out += [f"BODY(body_{call.name});\n" for call in calls if call.served not in NO_BODY]
    bodies = dict.fromkeys(row[4] for row in table["AUXILIARY"] if row[4])
    out += [f"BODY(body_{body});\n" for body in bodies if body != "exit_group"]
    out += ["BODY(body_planned);\n\n"]
    out.append(
        definition("planned", ["(void)c, (void)s, (void)a, (void)capable;", "return -ENOSYS;"])
    )
    out.append("THUNK(native_planned, body_planned, own, 0)\n\n")
    rows = []
    for call in calls:
        if call.served == "plain":
            out.append(plain_body(call))
        elif call.served.startswith("="):
            out.append(forwarding_body(call))
        out += thunk_lines(call)
        rows.append(row(call, signature(call.arguments)))
    out += auxiliary(table, signature, rows)
    out.append("\nEXPORT const struct call wali_calls[] = {\n" + "".join(rows) + "};\n")
    out.append(f"EXPORT const uint64_t wali_call_count = {len(rows)};\n")
    out.append("EXPORT wasmtime_unchecked_callback_t *const wali_unserved = native_planned;\n")
    options = "".join(f"    {{{', '.join(map(str, o))}}},\n" for o in table["SOCKET_OPTIONS"])
    out.append(
        "const struct socket_option socket_options[] = {\n" + options + "    {0, 0, 0},\n};\n"
    )
    out.append(f'EXPORT const char wali_architecture[] = "{arch}";\n')
    return "".join(out)


def thunk_lines(call: Any) -> list[str]:
    """The thunks of a call: for WALI programs, and for each space that shims may use it on."""
    if call.served in NO_BODY:
        return []
    lines = [f"THUNK(native_{call.name}, body_{call.name}, own, 0)\n"]
    lines += [
        f"THUNK({space}_{call.name}, body_{call.name}, {space}, 1)\n" for space in call.shim.split()
    ]
    return [*lines, "\n"]


def row(call: Any, types: str) -> str:
    """A call's line of the list from which Python links."""
    native = {"planned": "native_planned", "host": "NULL"}.get(call.served, f"native_{call.name}")
    own = f"own_{call.name}" if "own" in call.shim.split() else "NULL"
    guest = f"guest_{call.name}" if "guest" in call.shim.split() else "NULL"
    return (
        f'    {{"wali", "SYS_{call.name}", "{types}", "I", "{call.group}",'
        f" {native}, {own}, {guest}}},\n"
    )


def auxiliary(table: dict[str, Any], signature: Any, rows: list[str]) -> list[str]:
    """The thunks of the calls that are not Linux's; their lines go to ``rows``."""
    out = []
    for module, name, arguments, result, body, whose in table["AUXILIARY"]:
        thunk = f"aux_{name}" if body else "NULL"
        if body:
            space, capable = ("own", 0) if whose == "program" else (whose, 1)
            out.append(f"THUNK({thunk}, body_{body}, {space}, {capable})\n")
        native = thunk if module == "wali" else "NULL"
        shims = "NULL" if whose in ("program", "host") else thunk
        rows.append(
            f'    {{"{module}", "{name}", "{signature(arguments)}", "{result}", "",'
            f" {native}, {shims}, NULL}},\n"
        )
    return out


def numbers(table: dict[str, Any], arch: str) -> str:
    """The text of ``numbers.gen.h``: the kernel's numbers on this processor."""
    column = {"x86_64": 0, "aarch64": 1}[arch]
    known = {call.name: (call.x86_64, call.aarch64)[column] for call in table["CALLS"]}
    known |= {name: pair[column] for name, pair in table["INTERNAL"].items()}
    lines = [
        f"#define NR_{name} {number}\n"
        for name, number in sorted(known.items())
        if number is not None
    ]
    return BANNER + "".join(lines)


def generate(table_path: Path, out_dir: Path, arch: str) -> None:
    """Write both files for ``arch`` (``x86_64`` or ``aarch64``) into ``out_dir``."""
    table = runpy.run_path(str(table_path))
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "numbers.gen.h").write_text(numbers(table, arch))
    (out_dir / "thunks.gen.c").write_text(thunks(table, arch))
