"""What the build makes: objects that load anywhere, whole wheels and source archives."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from pathlib import Path

MACHINES = {"x86_64": 62, "aarch64": 183}
PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
DT_NEEDED = 1
WRITE, EXECUTE = 2, 1

EXPORT = '__attribute__((visibility("default")))'


def segments(elf: bytes) -> list[tuple[int, int, int, int]]:
    """Return the program headers of a 64-bit little-endian ELF file: type, flags, offset, size."""
    (start,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    headers = (struct.unpack_from("<IIQQQQ", elf, start + size * index) for index in range(count))
    return [(kind, flags, offset, length) for kind, flags, offset, _, _, length in headers]


def dynamic_tags(elf: bytes) -> set[int]:
    """Return the tags of the dynamic section."""
    (dynamic,) = (segment for segment in segments(elf) if segment[0] == PT_DYNAMIC)
    _, _, offset, length = dynamic
    return {tag for tag, _ in struct.iter_unpack("<QQ", elf[offset : offset + length])}


def build(target: str, out: Path, *, root: Path = compiler.ROOT, arch: str = "") -> Path:
    """Run the build backend as an installer does, and return the one file that it makes."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", out],
        cwd=root,
        env=os.environ | {"WALI_ARCH": arch},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_core_needs_no_library(arch: str, tmp_path: Path) -> None:
    """The core is for the machine that was asked for, and loads on any C library or none."""
    elf = compiler.build_core(tmp_path / "core.so", arch=arch).read_bytes()

    assert struct.unpack_from("<H", elf, 18) == (MACHINES[arch],)
    assert DT_NEEDED not in dynamic_tags(elf)


@pytest.mark.slow
@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_nothing_is_writable_and_executable(arch: str, tmp_path: Path) -> None:
    """Neither the stack nor any part of the core can be both written and run."""
    elf = compiler.build_core(tmp_path / "core.so", arch=arch).read_bytes()

    assert any(kind == PT_GNU_STACK for kind, _, _, _ in segments(elf))
    for kind, flags, _, _ in segments(elf):
        if kind in {PT_LOAD, PT_GNU_STACK}:
            assert flags & (WRITE | EXECUTE) != WRITE | EXECUTE


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("int main(void) { return 1 }", "expected ';'"),
        ("int f(int unused) { return 1; }", "unused parameter"),
        (f"int puts(void); {EXPORT} int f(void) {{ return puts(); }}", "undefined symbol: puts"),
    ],
)
def test_a_failed_build_shows_why(code: str, complaint: str, tmp_path: Path) -> None:
    """An error, a warning or a call into a C library ends the build with the compiler's words."""
    source = tmp_path / "wrong.c"
    source.write_text(code)
    out = tmp_path / "core.so"

    with pytest.raises(compiler.BuildError) as caught:
        compiler.build_core(out, arch="x86_64", sources=[source])

    assert str(caught.value).startswith("core.so cannot be built: the C compiler gave status 1.\n")
    assert complaint in str(caught.value)
    assert [source] == list(tmp_path.iterdir())


def test_no_sources_is_an_error(tmp_path: Path) -> None:
    """A tree without its C files is told so, and no compiler is started."""
    with pytest.raises(compiler.BuildError, match=r"^core\.so cannot be built: there are no C s"):
        compiler._compile([], tmp_path / "core.so", [])


def test_old_objects_stay_as_they_are(tmp_path: Path) -> None:
    """A new object takes the place of the old one, which a process may still have loaded."""
    out = tmp_path / "shim.wasm"
    out.write_bytes(b"old")
    with out.open("rb") as old:
        compiler.build_shim(out)

        assert old.read() == b"old"
    assert out.read_bytes().startswith(b"\0asm")


def test_architecture_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`WALI_ARCH` names another architecture; one that does not exist is refused."""
    monkeypatch.setenv("WALI_ARCH", "aarch64")
    assert compiler.target_arch() == "aarch64"
    monkeypatch.setenv("WALI_ARCH", "")
    assert compiler.target_arch() == compiler.host_arch()
    monkeypatch.setenv("WALI_ARCH", "mips")
    with pytest.raises(compiler.BuildError) as caught:
        compiler.target_arch()

    assert str(caught.value) == "WALI_ARCH is 'mips': it can be x86_64 or aarch64."


@pytest.mark.parametrize(
    ("system", "machine"), [("Darwin", "arm64"), ("Linux", "riscv64"), ("FreeBSD", "x86_64")]
)
def test_other_platforms_are_told(
    system: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a platform that is not supported the build ends with one sentence."""
    name = os.uname_result((system, "host", "1", "1", machine))
    monkeypatch.setattr(os, "uname", lambda: name)

    with pytest.raises(compiler.BuildError) as caught:
        compiler.host_arch()

    assert str(caught.value) == (
        "wasi-on-wali runs on 64-bit Linux on x86_64 and aarch64 only: "
        f"this is {system} on {machine}."
    )


def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cache folder of the user's own the compiler gets one for this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")

    cache = compiler._cache_dir.__wrapped__()

    assert cache.is_dir()
    assert cache.name.startswith("zig-cache-")


@pytest.mark.slow
@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_wheels_are_whole(arch: str, tmp_path: Path) -> None:
    """A wheel is tagged for its platform, and holds both objects but none of their sources."""
    before = compiler.CORE.stat().st_ino

    wheel = build("wheel", tmp_path, arch=arch)

    tags = f"manylinux_2_17_{arch}.manylinux2014_{arch}.musllinux_1_1_{arch}"
    assert wheel.name == f"wasi_on_wali-0.1.0-py3-none-{tags}.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        core = archive.read("wali_core/native/libwali.so")
        assert archive.read("wasi_shim/shim.wasm").startswith(b"\0asm")
    assert struct.unpack_from("<H", core, 18) == (MACHINES[arch],)
    assert {"wali_core/cli.py", "wasi_shim/__init__.py", "capabilities/py.typed"} <= names
    assert not [name for name in names if name.endswith((".c", ".h", "build_hook.py"))]
    assert compiler.CORE.stat().st_ino == before


@pytest.mark.slow
def test_source_archives_build(tmp_path: Path) -> None:
    """A source archive holds all that a wheel is made of, and nothing that was built."""
    (tmp_path / "sdist").mkdir()
    (tmp_path / "wheel").mkdir()
    with tarfile.open(build("sdist", tmp_path / "sdist")) as archive:
        names = archive.getnames()
        # Python before 3.11.4 has no filters, and from 3.12 on it warns of their absence.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)  # noqa: S202 (made a moment ago)
    (tree,) = tmp_path.glob("wasi_on_wali-*")

    assert not [name for name in names if name.endswith((".so", ".wasm", ".pyc"))]
    assert build("wheel", tmp_path / "wheel", root=tree).suffix == ".whl"
