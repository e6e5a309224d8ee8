"""Generate the core's thunks from the table: ``thunks.gen.c`` and ``numbers.gen.h``.

Run by the build (``compile.py``); the output is never committed and holds no logic of its own:
every check that it makes is a call of a function in the handwritten C.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

CONSTANTS = Path(__file__).parents[1] / "_constants.py"
LAYOUT = Path(__file__).parents[1] / "_layout.py"

# Calls that have no body in C: not served yet, or served by Python.
NO_BODY = ("planned", "host")

JUMPS_BACK = """\
/* Of a function that makes a system call: it returns by a jump where a `ret` is mispredicted, and
 * many of the kernel's as well the next time (Safe RET, on x86-64).  clang has this since 15. */
#if __has_attribute(function_return)
#define JUMPS_BACK __attribute__((function_return("thunk-extern")))
#else
#define JUMPS_BACK
#endif

"""

# Calls that are no system calls most of the time.
IN_VDSO = ("clock_gettime",)

# Calls of programs that are bodies in C and calls in Python in one: both know where to go on.
ALSO_HOSTED = ("sendmsg", "recvmsg", "readlinkat")


# Kinds of which a shim may use the lowest values only.
CAPABLE_ONLY = {"exchange": 3, "clock": "CLOCKS_OF_ONES_OWN", "mode": 0o777}

BANNER = "/* Made by generate.py from _table.py: change those. */\n"


class Argument:
    """What one argument of a plain thunk needs: a value, and statements around the call."""

    def __init__(self, index: int, kinds: list[str], arch: str) -> None:
        self.index, self.kinds, self.arch = index, kinds, arch
        self.before: list[str] = []
        self.after: list[str] = []
        self.raw = f"a[{index}]"
        kind = kinds[index]
        if kind.startswith("mem"):
            size = kind[4:-1] if kind.startswith("mem[") else f"a[{kind[4:]}].u32"
            self._buffer(f"space_buffer(c, s, {self.raw}.u32, {size})")
        elif kind.startswith(("mask:", "set:")):
            self._mask(*kind.split(":"))
        elif kind in CAPABLE_ONLY:
            self._refuse(f"{self.raw}.u32 > {CAPABLE_ONLY[kind]}", "-EINVAL")
            self.value = f"{self.raw}.u32"
        else:
            getattr(self, f"_{KINDS[kind]}")()

    # Numbers.

    def _int(self) -> None:
        self.value = f"{self.raw}.i32"

    def _uint(self) -> None:
        self.value = f"{self.raw}.u32"

    def _long(self) -> None:
        self.value = f"{self.raw}.i64"

    def _flags(self) -> None:
        # Of what is made: the host's descriptor is always close-on-exec.
        given = f"{self.raw}.u32"
        self.value = f"(({given} & ~(uint32_t)O_NONBLOCK) | host_nonblock(c, {given}) | O_CLOEXEC)"

    def _cloexec(self) -> None:
        self.value = f"({self.raw}.u32 | O_CLOEXEC)"

    def _message(self) -> None:
        self.before += [f"if ({self.raw}.u32 & ~(uint32_t)MESSAGE_FLAGS)", "    return -EINVAL;"]
        self._uint()

    def _zero(self) -> None:
        self._refuse(f"{self.raw}.i32", "-EPERM")
        self._int()

    def _at(self) -> None:
        # Without a path the kernel takes no flags.
        given = [f" && p{i}" for i, kind in enumerate(self.kinds) if kind == "path?"]
        forced = f"capability_no_follow({self.raw}.i32)"
        self.value = f"(capable{''.join(given)} ? {forced} : {self.raw}.i32)"

    def _refuse(self, condition: str, answer: str) -> None:
        self.before += [f"if (capable && {condition})", f"    return {answer};"]

    # Descriptors.  Of a program's that is none the kernel says so, where it comes to it.

    def _fd(self) -> None:
        self._descriptor("NO_DIRECTORY")

    def _dirfd(self) -> None:
        # An absolute path needs none.
        self._descriptor(f"!capable && {self.raw}.i32 == AT_FDCWD ? c->cwd : NO_DIRECTORY")

    def _descriptor(self, fallback: str) -> None:
        i = self.index
        self.before = [
            f"struct descriptor *d{i} = descriptor_at(c, {self.raw}.i32);",
            f"int32_t h{i} = d{i} ? d{i}->host : {fallback};",
            f"if (capable && h{i} == NO_DIRECTORY)",
            "    return -EBADF;",
        ]
        if self.kinds[i].endswith("!"):
            self.before += [
                f"if (capable && (r = capability_modify(c, d{i})) < 0)",
                "    return r;",
            ]
        self.value = f"h{i}"

    # Strings.

    def _path(self) -> None:
        self._string("capability_component")

    def _target(self) -> None:
        self._string("capability_link_target")

    def _path_or_null(self) -> None:
        self._path()
        taken = (f"    {line}" for line in self.before[2:])
        self.before = [*self.before[:2], f"if ({self.raw}.u32) {{", *taken, "}"]

    def _string(self, check: str) -> None:
        i = self.index
        self.before = [
            f"char b{i}[PATH_MAX];",
            f"const char *p{i} = NULL;",
            f"if ((r = take_string(c, s, {self.raw}.u32, b{i}, &p{i}, capable)) < 0)",
            "    return r;",
            f"if (capable && (r = {check}(p{i})) < 0)",
            "    return r;",
        ]
        self.value = f"p{i}"

    # Memory.  Likewise.

    def _mask(self, kind: str, size: str) -> None:
        self.before = [
            f"if ((r = take_mask(c, s, {self.raw}.u32, a[{size}].u32)) < 0)",
            "    return r;",
            f"const uint64_t *m{self.index} = MASK_OF(c);",
        ]
        if kind == "set":  # it is not what handlers run with
            self.before.append("c->has_mask_during = 0;")
        self.value = f"m{self.index}"

    def _name(self) -> None:
        # Its room is the kernel's to read; behind the end of every memory there are guard pages.
        self._buffer(f"space_buffer(c, s, {self.raw}.u32, 0)")

    def _stat(self) -> None:
        i = self.index
        self._buffer(f"space_buffer(c, s, {self.raw}.u32, sizeof(struct guest_stat))")
        if self.arch != "x86_64":  # there the kernel's struct is the guest's
            self.before.append(f"kernel_stat_t k{i};")
            self.value = f"&k{i}"
            self.after = ["if (r == 0)", f"    r = stat_to_guest(p{i}, &k{i});"]

    def _buffer(self, place: str) -> None:
        self.before = [
            f"uint8_t *p{self.index} = {place};",
            f"if (capable && p{self.index} == WALI_BAD)",
            "    return -EFAULT;",
        ]
        self.value = f"p{self.index}"


# The method for each kind that is not made up of two parts.
KINDS = {kind: kind for kind in ("int", "uint", "long", "zero", "at", "fd", "dirfd")}
KINDS |= {kind: kind for kind in ("path", "target", "name", "stat")}
KINDS |= {kind: kind for kind in ("flags", "cloexec", "message")}
KINDS |= {"fd!": "fd", "dirfd!": "dirfd", "path?": "path_or_null"}


def plain_body(call: Any, arch: str, name: str) -> str:
    """The whole body of a call whose arguments say all that there is to check."""
    kinds = call.arguments.split()
    arguments = [Argument(i, kinds, arch) for i in range(len(kinds))]
    before = [line for argument in arguments for line in argument.before]
    after = [line for argument in arguments for line in argument.after]
    values = [argument.value for argument in arguments] + ["0"] * (6 - len(arguments))
    how = "WAIT(c, " if call.served.startswith("waits") else "SYS("
    made = f"{how}NR_{call.name}, {', '.join(values)})"
    if call.served == "makes":
        made = f"descriptor_install_made(c, {made}, a[{len(kinds) - 1}].u32)"
    if call.served == "moves":  # before it does, for those that open at the same time
        before.append("c->table->procfs &= ~(uint32_t)PROCFS_ELSEWHERE;")
    uses_r = after or any("(r = " in line for line in before)
    lines = ["int64_t r;"] if uses_r else []
    lines += before
    lines += [f"r = {made};", *after, "return r;"] if after else [f"return {made};"]
    return definition(name, lines)


def is_direct(call: Any, arch: str) -> bool:
    """Is it a call of this processor's kernel, which a program in a process of its own makes?"""
    return call.served.startswith("direct/") and bool(getattr(call, arch))


def either_body(call: Any) -> str:
    """A call that the kernel serves as it is, or waits in, if it can; else it has other ways."""
    where = "LIKELY(c->direct)"
    if call.arguments.startswith("fd"):
        d = "descriptor_at(c, a[0].i32)"
        where = f"(!{d} || waits_in_kernel(c, {d}))"
    alternatives = f"{where} ? direct_{call.name}(c, s, a, 0) : body_{call.name}(c, s, a, 0)"
    return definition(f"either_{call.name}", [f"return {alternatives};"], "")


def forwarding_body(call: Any, bodies: dict[str, str]) -> str:
    """A call that is made from another: ``= other(AT_FDCWD, $0, 0)``; or a number: ``= 0``."""
    if re.fullmatch(r"= \d+", call.served):
        return definition(call.name, [f"return {call.served[2:]};"])
    match = re.fullmatch(r"(?:direct/)?= (\w+)\((.*)\)", call.served)
    if match is None:
        raise ValueError(f"_table.py: {call.name}: cannot read {call.served!r}")
    values = [
        f"a[{word[1:]}]" if word.startswith("$") else f"{{.i64 = {word}}}"
        for word in filter(None, match[2].split(", "))
    ] or ["{.i64 = 0}"]
    return definition(
        call.name,
        [
            f"const wasmtime_val_raw_t b[] = {{{', '.join(values)}}};",
            f"return {bodies.get(match[1], f'body_{match[1]}')}(c, s, b, capable);",
        ],
    )


def definition(name: str, lines: list[str], prefix: str = "body_") -> str:
    """A body from its lines."""
    return f"BODY({prefix}{name}) {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


def thunks(table: dict[str, Any], arch: str) -> str:
    """The text of ``thunks.gen.c``."""
    calls, signature = table["CALLS"], table["signature"]
    out = [BANNER, '#include "core.h"\n\n', JUMPS_BACK]
    out += [f"BODY(body_{call.name});\n" for call in calls if call.served not in NO_BODY]
    bodies = dict.fromkeys(row[4] for row in table["AUXILIARY"] if row[4].isidentifier())
    out += [f"BODY(body_{body});\n" for body in bodies if body != "exit_group"]
    out += ["BODY(body_planned);\n\n"]
    out.append(definition("planned", ["return -ENOSYS;"]))
    out.append("THUNK(native_planned, body_planned, own, 0, 0)\n\n")
    # What a WALI program has of each call, where that is not the body.
    eithers = [c for c in calls if c.served == "waits/body" or is_direct(c, arch)]
    natives = {c.name: f"either_{c.name}" for c in eithers}
    programs = ("bodies", "plain/program")
    natives |= {c.name: f"program_{c.name}" for c in calls if c.served in programs}
    out += [f"BODY({name});\n" for name in natives.values()]
    rows = []
    for call in calls:
        if call.served in ("plain", "waits", "makes", "moves", "plain/program"):
            out.append(plain_body(call, arch, call.name))
        elif "= " in call.served:
            out.append(forwarding_body(call, natives))
        elif call.served == "host":
            out.append(hosted_body(call.name, f"SYS_{call.name}"))
        if call in eithers:
            out.append(plain_body(call, arch, call.name).replace("body_", "direct_", 1))
            out.append(either_body(call))
        restarts = table["TIMED"].get(call.name, int(call.name in table["RESTARTED"]))
        out += thunk_lines(call, natives.get(call.name, f"body_{call.name}"), restarts)
        rows.append(row(call, signature(call.arguments), table["WAITS"]))
    out += auxiliary(table, signature, rows)
    out.append("\nEXPORT const struct call wali_calls[] = {\n" + "".join(rows) + "};\n")
    out.append(f"EXPORT const uint64_t wali_call_count = {len(rows)};\n")
    out.append("EXPORT wasmtime_unchecked_callback_t *const wali_unserved = native_planned;\n")
    names = "".join(f'"{name}", ' for name in host_calls(table))
    out.append(f"EXPORT const char *const wali_host_calls[] = {{{names}NULL}};\n")
    out.append(listed_size(table))
    out.append(f'EXPORT const char wali_architecture[] = "{arch}";\n')
    return "".join(out)


def listed_size(table: dict[str, Any]) -> str:
    """The closed lists: the size that the table says, or -1."""
    listed = [("LISTED_IOCTL", *row) for row in table["IOCTLS"]]
    listed += [("LISTED_FCNTL", *row) for row in table["FCNTLS"]]
    listed += table["SOCKET_OPTIONS"]
    lines = ["int32_t listed_size(int32_t level, uint32_t name) {\n    switch (level) {\n"]
    for level in dict.fromkeys(level for level, _, _ in listed):
        rows = ((name, size) for of, name, size in listed if of == level)
        cases = [f"        case {name}: return {size};\n" for name, size in rows]
        lines += [f"    case {level}:\n        switch (name) {{\n", *cases, "        }\n"]
        lines += ["        break;\n"]
    return "".join([*lines, "    }\n    return -1;\n}\n"])


def hosted_body(name: str, call: str) -> str:
    """The body of a call that is served by Python."""
    return definition(name, [f"return c->host(c, HOST_{call.removeprefix('SYS_')}, a);"])


def thunk_lines(call: Any, native: str, restarts: int) -> list[str]:
    """The thunks of a call: for WALI programs, and for each space that shims may use it on."""
    if call.served == "planned":
        return []
    thunk = "THUNK" if call.name in IN_VDSO else "JUMPS_BACK THUNK"
    lines = [f"{thunk}(native_{call.name}, {native}, own, 0, {restarts})\n"]
    lines += [
        f"{thunk}({space}_{call.name}, body_{call.name}, {space}, 1, -1)\n"
        for space in call.shim.split()
    ]
    return [*lines, "\n"]


def row(call: Any, types: str, waits: frozenset[str]) -> str:
    """A call's line of the list from which Python links."""
    native = {"planned": "native_planned", "host": "NULL"}.get(call.served, f"native_{call.name}")
    hosted = f"native_{call.name}" if call.served == "host" else "NULL"
    own = f"own_{call.name}" if "own" in call.shim.split() else "NULL"
    guest = f"guest_{call.name}" if "guest" in call.shim.split() else "NULL"
    return (
        f'    {{"wali", "SYS_{call.name}", "{types}", "I", "{call.group}",'
        f" {native}, {hosted}, {own}, {guest}, {int(call.name in waits)}}},\n"
    )


def auxiliary(table: dict[str, Any], signature: Any, rows: list[str]) -> list[str]:
    """The thunks of the calls that are not Linux's; their lines go to ``rows``."""
    out = []
    for module, name, arguments, result, body, whose in table["AUXILIARY"]:
        thunk, hosted = f"aux_{name}" if body else "NULL", "NULL"
        if body.startswith("="):
            out.append(definition(name, [f"return {body[2:]};"]))
            body = name  # noqa: PLW2901 - from here on as if it were handwritten
        if body:
            space, mode = ("own", "0, 0") if module == "wali" else (whose, "1, -1")
            out.append(f"THUNK({thunk}, body_{body}, {space}, {mode})\n")
        else:
            hosted = f"host_{name}"
            out.append(hosted_body(hosted, name))
            out.append(f"THUNK({hosted}, body_{hosted}, own, 0, 0)\n")
        native = thunk if module == "wali" else "NULL"
        shims = "NULL" if whose in ("program", "host") else thunk
        rows.append(
            f'    {{"{module}", "{name}", "{signature(arguments)}", "{result}", "",'
            f" {native}, {hosted}, {shims}, NULL, 0}},\n"
        )
    return out


def host_calls(table: dict[str, Any]) -> list[str]:
    """The names of the calls that Python serves, as WALI has them: an index is their number."""
    names = [
        f"SYS_{call.name}"
        for call in table["CALLS"]
        if call.served == "host" or call.name in ALSO_HOSTED
    ]
    return names + [row[1] for row in table["AUXILIARY"] if not row[4]]


def numbers(table: dict[str, Any], arch: str) -> str:
    """The text of ``numbers.gen.h``: the kernel's numbers on this processor, and its constants."""
    column = {"x86_64": 0, "aarch64": 1}[arch]
    known = {call.name: (call.x86_64, call.aarch64)[column] for call in table["CALLS"]}
    known |= {name: pair[column] for name, pair in table["INTERNAL"].items()}
    lines = [
        f"#define NR_{name} {number}\n"
        for name, number in sorted(known.items())
        if number is not None
    ]
    constants = runpy.run_path(str(CONSTANTS))["CONSTANTS"]
    lines += ["enum {\n"]
    for name, value in constants.items():
        lines.append(f"    {name} = {value[column] if isinstance(value, tuple) else value},\n")
    lines += ["};\n", "enum host_call {\n"]
    lines += [f"    HOST_{name.removeprefix('SYS_')},\n" for name in host_calls(table)]
    return BANNER + "".join([*lines, "};\n"])


def layout() -> str:
    """The text of ``layout.gen.h``: numbers and fields that the core and Python share."""
    shared = runpy.run_path(str(LAYOUT))
    numbers = (f"    {name} = {value},\n" for name, value in shared["NUMBERS"].items())
    lines = ["#pragma once\n", "enum {\n", *numbers, "};\n"]
    for struct in ("SLOT", "TABLE", "CONTEXT", "CALL"):
        fields = [declaration(c, name) for c, name, _ in shared[struct]]
        lines.append(f"#define {struct}_FIELDS {' '.join(fields)}\n")
    functions = [f"{c} (*{name})({arguments});" for c, name, arguments in shared["WASMTIME"]]
    lines.append(f"#define WASMTIME_FIELDS {' '.join(functions)}\n")
    return BANNER + "".join(lines)


def declaration(c: str, name: str) -> str:
    """A field; the size of an array stands behind its name."""
    kind, bracket, size = c.partition("[")
    return f"{kind} {name}{bracket}{size};"


def generate(table_path: Path, out_dir: Path, arch: str) -> None:
    """Write both files for ``arch`` (``x86_64`` or ``aarch64``) into ``out_dir``."""
    table = runpy.run_path(str(table_path))
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "layout.gen.h").write_text(layout())
    (out_dir / "numbers.gen.h").write_text(numbers(table, arch))
    (out_dir / "thunks.gen.c").write_text(thunks(table, arch))


def compatibility(table: dict[str, Any]) -> str:
    """The table of calls for the documents, in Markdown."""
    lines = [
        "| Call | Number (x86-64, aarch64) | Group | Served | Note |",
        "| --- | --- | --- | --- | --- |",
    ]
    for call in sorted(table["CALLS"], key=lambda call: call.name):
        numbers = f"{call.x86_64}, {'none' if call.aarch64 is None else call.aarch64}"
        name = f"`{call.name}`" + (" (not in WALI)" if call.ours else "")
        lines.append(f"| {name} | {numbers} | {call.group} | {served(call)} | {call.note} |")
    return "".join(f"{line}\n" for line in lines)


def served(call: Any) -> str:
    """By whom, in words."""
    match = re.fullmatch(r"= (-?\w+)(\(.*)?", call.served.removeprefix("direct/"))
    if match is None:
        return {"host": "Python", "planned": "no: ENOSYS"}.get(call.served, "yes")
    if match[2]:
        return f"yes, by `{match[1]}`"
    return "does nothing" if match[1] == "0" else f"no: {match[1].removeprefix('-')}"


def write_page(path: Path) -> None:
    """Put the table of calls between its marks in a document."""
    table = runpy.run_path(str(Path(__file__).parents[1] / "_table.py"))
    before, mark, rest = path.read_text().partition("<!-- calls -->\n")
    end = rest[rest.index("<!-- end of calls -->") :]
    path.write_text(before + mark + compatibility(table) + end)


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
