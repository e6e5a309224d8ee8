"""The Python side: where the shim is and how it is configured."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wasi_shim
from wasi_shim import WasiAbi, _abi

HEADER = struct.Struct("<8I2Q")


def test_modules_name_both_editions() -> None:
    """The old edition's own exports carry a prefix, the others are shared."""
    assert wasi_shim.abi.modules == {"wasi_snapshot_preview1": "", "wasi_unstable": "unstable_"}


def test_path_is_the_compiled_shim() -> None:
    """The path names a Wasm module."""
    assert Path(wasi_shim.abi.path()).read_bytes().startswith(b"\0asm")


def test_path_of_an_unbuilt_shim_says_how_to_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A checkout that was never built fails with the command to run."""
    monkeypatch.setattr(_abi, "__file__", str(tmp_path / "_abi.py"))

    with pytest.raises(FileNotFoundError, match=r"compile\.py"):
        WasiAbi().path()


def test_configuration_of_nothing_is_a_header() -> None:
    """No arguments, no environment and no directories leave a version and zeros."""
    assert HEADER.pack(2, *[0] * 9) == wasi_shim.abi.configuration([], [], [])


def test_configuration_holds_strings_and_preopens() -> None:
    """Strings lie back to back with their NULs, preopens follow on whole words."""
    blob = wasi_shim.abi.configuration(
        [b"prog", b""], [b"A=1"], [(3, b"/", False), (4, b"rodir", True)]
    )

    assert HEADER.unpack_from(blob) == (2, 2, 6, 1, 4, 2, 0, 0, 0, 0)
    assert blob[48:60] == b"prog\0\0A=1\0\0\0"
    assert struct.pack("<3I4s", 3, 0, 1, b"/") == blob[60:76]
    assert struct.pack("<3I8s", 4, 1, 5, b"rodir") == blob[76:]


def test_configuration_names_datagram_sockets() -> None:
    """After the preopens, without a name."""
    blob = wasi_shim.abi.configuration([], [], [(3, b"/", False)], [1, 4])

    assert HEADER.unpack_from(blob)[5] == 3
    assert struct.pack("<3I4s3I3I", 3, 0, 1, b"/", 1, 2, 0, 4, 2, 0) == blob[48:]


@pytest.mark.parametrize(("options", "flags"), [({"strict": True}, 1), ({"manual_walk": True}, 2)])
def test_configuration_has_the_options(options: dict[str, Any], flags: int) -> None:
    """Each option is a bit of the flags."""
    blob = wasi_shim.abi.configuration([], [], [], **options)

    assert flags == HEADER.unpack(blob)[6]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clock": ("virtual", 7)}, (0, 1, 7, 0)),
        ({"clock": ("fixed", 2**64 - 1)}, (0, 2, 2**64 - 1, 0)),
        ({"seed": 0}, (4, 0, 0, 0)),
        ({"seed": 2**64 - 1, "strict": True}, (5, 0, 0, 2**64 - 1)),
    ],
)
def test_configuration_has_time_and_seed(
    options: dict[str, Any], words: tuple[int, int, int, int]
) -> None:
    """A clock is a number and a time, a seed a flag and itself, since zero is one too."""
    assert HEADER.unpack(wasi_shim.abi.configuration([], [], [], **options))[6:] == words


@pytest.mark.parametrize(("args", "env"), [([b"a\0b"], []), ([], [b"A=\0"])])
def test_configuration_refuses_a_nul(args: list[bytes], env: list[bytes]) -> None:
    """A NUL inside a string would make two of it."""
    with pytest.raises(ValueError, match="NUL"):
        wasi_shim.abi.configuration(args, env, [])


def test_importing_stays_cheap() -> None:
    """The package lies on the way to every guest's start, so it must not import typing or re."""
    heavy = ["typing", "re", "importlib.metadata", "pathlib", "dataclasses", "enum"]
    program = f"import sys, wasi_shim; print([m for m in {heavy} if m in sys.modules])"

    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(Path.cwd())!r}); {program}",
        ],
        capture_output=True,
        check=True,
        text=True,
        cwd=Path(wasi_shim.__file__).parent.parent,
    )

    assert done.stdout.strip() == "[]"
