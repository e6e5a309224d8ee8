"""Link a hostile shim in the place of the real one, and see what it gets hold of: nothing.

    python -m examples.05_evil_shim.evil_shim

Then the same again on a core that is broken on purpose (capability.c with its refusals taken out),
where it does get out: so the attempts are real ones, and it is the core that refuses them.
"""

from __future__ import annotations

import errno
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wasi_shim
from examples._common import BUILD, ROOT, expect, guest, run, say, text
from wali_core import ModuleError, Runtime
from wali_core._bridge import Core
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
WHOLE, LOOT = b"word for word", "nobody granted this"

# What something other than capability.c stops: on the broken core, too.
STOPPED_ELSEWHERE = {
    "open from the working directory": "it has none",
    "read 4091 descriptor numbers": "its table holds its own descriptors only",
    "write outside the guest's memory": "every address is checked",
    "write outside its own memory": "every address is checked",
}


class EvilAbi(wasi_shim.WasiAbi):
    """A provider of WASI that has another module than the real one."""

    def __init__(self, module: Path, secret: Path) -> None:
        self._module, self._secret = module, secret

    def path(self) -> str:
        """The hostile module."""
        return str(self._module)

    def configuration(self, *_: Any, **__: Any) -> bytes:
        """All that it wants to know."""
        return bytes(self._secret) + b"\0"


@contextmanager
def linked(abi: wasi_shim.WasiAbi) -> Iterator[None]:
    """Have WASI served by another shim."""
    before, wasi_shim.abi = wasi_shim.abi, abi
    try:
        yield
    finally:
        wasi_shim.abi = before


def broken_core() -> Core:
    """Compile the core with a capability.c that refuses nothing."""
    say("building a core without its refusals")
    BUILD.mkdir(parents=True, exist_ok=True)
    out = BUILD / "libwali-broken.so"
    sources = [path for path in compiler.NATIVE.glob("*.c") if path.name != "capability.c"]
    permissive = ROOT / "tests" / "escape" / "permissive_capability.c"
    compiler.build_core(out, arch=compiler.host_arch(), sources=[*sources, permissive])
    return Core(str(out))


class World:
    """A folder with what is granted, and a secret that is not."""

    def __init__(self, folder: Path) -> None:
        self.box, self.shelf = folder / "box", folder / "shelf"
        self.private = folder / "private"
        for made in (self.box, self.shelf, self.private):
            made.mkdir()
        (self.private / "secret").write_text(LOOT)
        (self.box / "link").symlink_to("../private/secret")
        (self.shelf / "book").write_bytes(WHOLE)

    @property
    def is_whole(self) -> bool:
        """Is everything outside the writable grant as it was?"""
        names = [path.name for folder in (self.private, self.shelf) for path in folder.iterdir()]
        return names == ["secret", "book"] and (self.shelf / "book").read_bytes() == WHOLE


def attempts(runtime: Runtime, module: Path, world: World) -> list[tuple[str, int, str]]:
    """Run the innocent program on the hostile shim: attempt, the core's answer, loot."""
    program = guest(HERE / "innocent.c", target="wasm32-freestanding")
    dirs = {"/box": (world.box, "rw"), "/shelf": (world.shelf, "ro")}
    with linked(EvilAbi(module, world.private / "secret")):
        result = runtime.run_sync(program, dirs=dirs, capture_output=True)
    lines = [line.split("\t") for line in text(result.stdout).splitlines()]
    return [(name, int(answer), loot) for name, answer, loot in lines]


def show(name: str, answer: int, loot: str) -> None:
    """Print one line of the list."""
    said = errno.errorcode[-answer] if answer < 0 else "DONE"
    why = f"  ({STOPPED_ELSEWHERE[name]})" if name in STOPPED_ELSEWHERE else ""
    say(f"  {name:34} {said}{why}{f'  it read {loot!r}' if loot else ''}")


def is_refused(module: Path) -> None:
    """On the real core nothing succeeds."""
    say("a hostile shim in the place of the real one:")
    with tempfile.TemporaryDirectory(prefix="wali-example-") as name, Runtime() as runtime:
        world = World(Path(name))
        found = attempts(runtime, module, world)
        for attempt in found:
            show(*attempt)
        expect(len(found) > len(STOPPED_ELSEWHERE), "it has not tried")
        expect(all(answer < 0 and not loot for _, answer, loot in found), "it got something")
        expect(world.is_whole, "it has changed something")
    say(f"{len(found)} attempts: all refused, nothing read, nothing changed.")


def succeeds_on(core: Core, module: Path) -> None:
    """On the broken core everything succeeds that capability.c refuses."""
    say("the same on a core that is broken ON PURPOSE:")
    with (
        tempfile.TemporaryDirectory(prefix="wali-example-") as name,
        Runtime(core=core, cache=False) as runtime,
    ):
        world = World(Path(name))
        found = attempts(runtime, module, world)
        for attempt in found:
            show(*attempt)
        stopped = {attempt for attempt, answer, _ in found if answer < 0}
        expect(stopped == STOPPED_ELSEWHERE.keys(), f"these were stopped: {sorted(stopped)}")
        expect(any(loot == LOOT for _, _, loot in found), "it has not read the secret")
        expect(not world.is_whole, "it has changed nothing")


def is_not_linked(module: Path) -> None:
    """A shim that imports a call which is not for shims is not even linked."""
    with tempfile.TemporaryDirectory(prefix="wali-example-") as name, Runtime() as runtime:
        try:
            attempts(runtime, module, World(Path(name)))
        except ModuleError as error:
            say(f"one that imports more: {str(error).removeprefix(f'{module.parent}/')}")
        else:
            expect(False, "the greedy shim was linked")


def main() -> None:
    """Show all three."""
    source = HERE / "evil_shim.c"
    target = "wasm32-freestanding"
    module = guest(source, target=target)
    greedy = guest(source, name="greedy_shim", target=target, flags=["-DGREEDY"])
    is_refused(module)
    is_not_linked(greedy)
    succeeds_on(broken_core(), module)


if __name__ == "__main__":
    run(main)
