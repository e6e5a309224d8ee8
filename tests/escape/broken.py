"""The core, broken on purpose, and every attack on it, in a process of its own.

A core with holes could take the process that runs the tests with it.  Run as a module, this one
prints what each attack got, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.escape.attack import Breakage
from tests.escape.evil import EvilHost, Worlds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.escape.attack import Attack

    Holes = dict[str, list[tuple[str, str]]]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
"""A folder that is no disk, where there is one: on a broken core every attack needs a new world."""

# What is taken out of the core besides capability.c: `file: [(text, what stands there instead)]`.
HOLES: Holes = {
    "descriptors.c": [
        (
            "struct descriptor *descriptor_at(struct context *c, int32_t number) {",
            """struct descriptor *descriptor_at(struct context *c, int32_t number) {
    static struct descriptor any; /* a number that nobody knows is the host's */
    if (number == AT_FDCWD || number >= 200)
        any = (struct descriptor){.host = number};
    if (number == AT_FDCWD)
        any.host = (int32_t)SYS(NR_openat, AT_FDCWD, ".", 0x200000, 0, 0, 0);
    if (number == AT_FDCWD || (number >= 200 && ((uint32_t)number >= c->table->capacity ||
                                                 c->table->descriptors[number].host < 0)))
        return &any;""",
        ),
        (
            """    if (capable)
        return -EPERM;
    switch (command) {""",
            """    if (capable)
        return SYS(NR_fcntl, d->host, command, argument, 0, 0, 0);
    switch (command) {""",
        ),
        (
            """    if (capable && request != TCGETS && request != FIONREAD)
        return -EPERM;""",
            """    if (capable)
        return SYS(NR_ioctl, d->host, request, s->base + a[2].u32, 0, 0, 0);""",
        ),
        ("if (d->flags & DESCRIPTOR_SHARED) {", "if (0) {"),
    ],
    "files.c": [(" | O_CLOEXEC | GUEST_O_NOFOLLOW, mode", " | O_CLOEXEC, mode")],
    "_table.py": [('"dirfd! path dirfd! path zero"', '"dirfd! path dirfd! path int"')],
}


# Reading again what was checked, a while later: in between, somebody else can change it.
WHILE = "    for (volatile int spin = 0; spin < 20000; spin++)\n        ;\n"
READS_TWICE: Holes = {
    "files.c": [
        (
            "    uint64_t flags = how.flags, anywhere = how.resolve, crossed = 0;\n",
            WHILE
            + """    copy_from(c, s, a[2].u32, &how, sizeof how);
    copy_string(c, s, a[1].u32, path, sizeof path);
    uint64_t flags = how.flags, anywhere = how.resolve, crossed = 0;
""",
        ),
        (
            "    if (r == 0)\n        r = SYS(NR_openat, dir->host, path,",
            WHILE
            + """    copy_string(c, s, a[1].u32, path, sizeof path);
    if (r == 0)
        r = SYS(NR_openat, dir->host, path,""",
        ),
    ],
}


def build(out: Path, breakage: Breakage) -> Path:
    """Build a core whose capability.c permits everything, and with the other holes if asked for."""
    permissive = {"capability.c": HERE / "permissive_capability.c"}
    return build_with(out, HOLES if breakage is Breakage.LISTS else {}, permissive)


def build_with(out: Path, holes: Holes, replaced: dict[str, Path] | None = None) -> Path:
    """Build a core with these files changed, and those replaced."""
    from wali_core.native import compile as native

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        replaced = dict(replaced or {})
        replaced |= {file: _with_holes(file, changes, folder) for file, changes in holes.items()}
        table, native.TABLE = native.TABLE, replaced.pop("_table.py", native.TABLE)
        try:
            sources = [replaced.get(path.name, path) for path in sorted(native.NATIVE.glob("*.c"))]
            return native.build_core(out, arch=native.host_arch(), sources=sources)
        finally:
            native.TABLE = table


def _with_holes(file: str, changes: list[tuple[str, str]], folder: Path) -> Path:
    original = ROOT / "wali_core" / ("" if file.endswith(".py") else "native") / file
    text = original.read_text()
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(f"{file} has changed: say anew how to break it, not at {old!r}")
        text = text.replace(old, new)
    broken = folder / file
    broken.write_text(text)
    return broken


# --- attacking ------------------------------------------------------------------------------------


def launch(host: EvilHost, attack: Attack, worlds: Worlds) -> tuple[int, bool, bool]:
    """Launch an attack in a new world: its answer, if it gained, and if it got anything."""
    with worlds.lend() as world, host.enter(world, grants_root=attack.grants_root) as evil:
        evil.answer = attack.run(evil)
        return evil.answer, attack.gain(evil), evil.has_anything


def launch_elsewhere(core: Path, shim: Path, most: int = 6) -> dict[str, tuple[int, bool]]:
    """Launch every attack on the core at a path, in a process of its own.

    What succeeds on a broken core may overwrite what the process itself is made of, so that a
    signal ends it, sooner or later.  It counts if all attacks were launched by then; else another
    takes its place, ``most`` in all.
    """
    command = [sys.executable, "-m", "tests.escape.broken", str(core), str(shim)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if len(found) == len(all_attacks()):
        return {name: (answer, gained) for name, answer, gained in found}
    if done.returncode < 0 and most > 1:
        return launch_elsewhere(core, shim, most - 1)
    raise RuntimeError(f"{core.name}: status {done.returncode}\n{done.stderr}")


def launch_often(core: Path, shim: Path, times: int = 6) -> dict[str, tuple[int, bool]]:
    """The same, several times: what succeeds once has succeeded.

    What a broken core takes for its own is whatever lies there, which differs from one to the next.
    """
    found = launch_elsewhere(core, shim)
    for _ in range(times - 1):
        again = launch_elsewhere(core, shim)
        found.update((name, result) for name, result in again.items() if result[1])
    return found


def all_attacks() -> dict[str, Attack]:
    """Every attack, by name."""
    from tests.escape import descriptors, paths, read_only
    from tests.escape.attack import named

    collections = (paths.paths, read_only.read_only, descriptors.descriptors)
    return named(attack for collection in collections for attack in collection.attacks)


def main(words: Iterable[str] | None = None) -> None:
    """Launch them all and print what came of it."""
    from wali_core._bridge import Core

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("core", type=Path)
    parser.add_argument("shim", type=Path)
    arguments = parser.parse_args(words if words is None else list(words))
    host = EvilHost(arguments.shim, Core(str(arguments.core)))
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        worlds = Worlds(Path(folder))
        for name, attack in all_attacks().items():
            answer, gained, _ = launch(host, attack, worlds)
            os.write(1, json.dumps((name, answer, gained)).encode() + b"\n")
    os._exit(0)  # there is no taking down in order what attacks may have written into


if __name__ == "__main__":
    main()
