"""Compile the native parts with the C compiler that the ziglang package installs.

Three things are built: the core (one ELF object that needs no C library, so that the same file
loads on every glibc and on musl), the WASI shim (one Wasm module) and, for tests and examples,
guests.

It needs nothing but the standard library and never imports the packages around it: the build hook
loads it by its path before anything is installed, and the Makefile runs it as a script.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

NATIVE = Path(__file__).resolve().parent
ROOT = NATIVE.parent.parent
TABLE = ROOT / "wali_core" / "_table.py"
CORE = NATIVE / "libwali.so"
SHIM_SOURCES = ROOT / "wasi_shim" / "src"
SHIM = ROOT / "wasi_shim" / "shim.wasm"

# The processor to build for, by architecture. Left out, zig tunes for the build machine's own, and
# the object dies of SIGILL on an older one.
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "generic"}

COMMON_FLAGS = ("-std=c11", "-O2", "-g0", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror")
FREESTANDING_FLAGS = ("-ffreestanding", "-nostdlib")
CORE_FLAGS = (
    *COMMON_FLAGS,
    *FREESTANDING_FLAGS,
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-flto",  # a thunk and the body of its call are in different files
    "-Wl,-Bsymbolic",  # what Python calls as well is called without a detour
    "-s",
    # What would have to come from a C library is an error here, not when somebody loads the object.
    "-Wl,-z,defs",
)
SHIM_FLAGS = (
    *COMMON_FLAGS,
    *FREESTANDING_FLAGS,
    "-Wmissing-prototypes",
    "-flto",  # calls are small, and spread over files by what they are about
    "-target",
    "wasm32-freestanding",
    "-mcpu=generic+bulk_memory+sign_ext+mutable_globals+nontrapping_fptoint",
    "-Wl,--no-entry",
    "-Wl,--export=wasi_room",  # data has no attribute for that
    "-Wl,-z,stack-size=32768",
    "-Wl,--strip-all",
)
GUEST_FLAGS = {
    "wasm32-wasi": (),
    "wasm32-freestanding": (*FREESTANDING_FLAGS, "-Wl,--no-entry"),
}


class BuildError(RuntimeError):
    """The native parts cannot be built here; the message tells a person all there is to know."""


def target_arch() -> str:
    """Return the architecture to build the core for: `WALI_ARCH` if it is set, else this machine's.

    Raises:
        BuildError: the core does not exist for that architecture or operating system.
    """
    wanted = os.environ.get("WALI_ARCH")
    if not wanted:
        return host_arch()
    if wanted not in ARCHITECTURES:
        raise BuildError(f"WALI_ARCH is {wanted!r}: it can be {' or '.join(ARCHITECTURES)}.")
    return wanted


def host_arch() -> str:
    """Return the architecture of the running interpreter, a key of `ARCHITECTURES`.

    Raises:
        BuildError: this is not Linux on x86_64 or aarch64, or Python is a 32-bit program.
    """
    system, machine = os.uname().sysname, os.uname().machine
    if system == "Linux" and machine in ARCHITECTURES and sys.maxsize > 2**32:
        return machine
    bits = "" if sys.maxsize > 2**32 else ", 32-bit Python"
    raise BuildError(
        f"wasi-on-wali runs on 64-bit Linux on {' and '.join(ARCHITECTURES)} only: "
        f"this is {system} on {machine}{bits}."
    )


def build_core(
    out: Path,
    *,
    arch: str,
    sources: Iterable[Path] | None = None,
    defines: Iterable[str] = (),
    extra_flags: Iterable[str] = (),
) -> Path:
    """Compile the core, thunks generated from the table included, to a shared object.

    Args:
        out: the file to write, replaced in one step: a process that has it loaded lives on.
        arch: a key of `ARCHITECTURES`.
        sources: the hand-written C files, `wali_core/native/*.c` if not given. Tests that break
            the core on purpose give a list in which one file is another.
        defines: preprocessor definitions, `"NAME"` or `"NAME=VALUE"`.
        extra_flags: more compiler arguments, after all others.

    Returns:
        `out`.

    Raises:
        BuildError: with the compiler's own words.
    """
    chosen = sorted(NATIVE.glob("*.c")) if sources is None else list(sources)
    with tempfile.TemporaryDirectory(prefix="wali-core-") as name:
        generated = Path(name)
        _load(NATIVE / "generate.py").generate(TABLE, generated, arch)
        _compile(
            [*chosen, *sorted(generated.glob("*.c"))],
            out,
            [
                *("-target", f"{arch}-linux-none", f"-mcpu={ARCHITECTURES[arch]}"),
                *CORE_FLAGS,
                *(f"-I{NATIVE}", f"-I{generated}"),
                *(f"-D{define}" for define in defines),
                *extra_flags,
            ],
        )
    return out


def build_baseline(source: Path, out: Path) -> Path:
    """Compile one C file for this machine, with the core's headers: what a benchmark compares with.

    Raises:
        BuildError: with the compiler's own words.
    """
    arch = host_arch()
    with tempfile.TemporaryDirectory(prefix="wali-baseline-") as name:
        _load(NATIVE / "generate.py").generate(TABLE, Path(name), arch)
        target = ("-target", f"{arch}-linux-none", f"-mcpu={ARCHITECTURES[arch]}")
        _compile([source], out, [*target, *CORE_FLAGS, f"-I{NATIVE}", f"-I{name}"])
    return out


def build_shim(out: Path) -> Path:
    """Compile the WASI shim, `wasi_shim/src/*.c`, to the Wasm module `out`, and return `out`.

    Raises:
        BuildError: with the compiler's own words.
    """
    _compile(sorted(SHIM_SOURCES.glob("*.c")), out, SHIM_FLAGS)
    return out


def compile_guest(
    source: Path, out: Path, *, target: str = "wasm32-wasi", flags: Iterable[str] = ()
) -> Path:
    """Compile one C file to a Wasm guest, for tests and examples.

    Args:
        source: the C file.
        out: the Wasm file to write.
        target: `"wasm32-wasi"`, with wasi-libc (zig builds that library when it is first asked
            for: about a minute), or `"wasm32-freestanding"`, with no library at all: what it
            exports carries an `export_name` attribute.
        flags: more compiler arguments, after all others.

    Returns:
        `out`.

    Raises:
        BuildError: with the compiler's own words.
        KeyError: `target` is neither of the two.
    """
    _compile([source], out, ["-target", target, "-O2", "-g0", *GUEST_FLAGS[target], *flags])
    return out


def build_all(arch: str) -> None:
    """Compile core and shim to where the packages look for them in a source tree.

    Raises:
        BuildError: with the compiler's own words.
    """
    build_core(CORE, arch=arch)
    build_shim(SHIM)


def _compile(sources: Sequence[Path], out: Path, flags: Iterable[str]) -> None:
    if not sources:
        raise BuildError(f"{out.name} cannot be built: there are no C sources for it.")
    # Beside `out`, not in a folder for temporary files: a rename does not cross file systems.
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    command = [*_zig(), "cc", *flags, *map(str, sources), "-o", str(unfinished)]
    try:
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BuildError(
                f"{out.name} cannot be built: the C compiler gave status {done.returncode}.\n"
                f"{done.stderr.strip()}\nThe command was: {shlex.join(command)}"
            )
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


def _zig() -> list[str]:
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(
            "The C compiler is missing: install the ziglang package for "
            f"{sys.executable} (pip install ziglang==0.17.1)."
        )
    return [sys.executable, "-m", "ziglang"]


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(_cache_dir()))
    environment.setdefault("ZIG_LOCAL_CACHE_DIR", environment["ZIG_GLOBAL_CACHE_DIR"])
    return environment


@functools.cache
def _cache_dir() -> Path:
    """Return zig's usual cache folder, or one for this process where there is no writable home."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zig"
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return cache
    except (OSError, RuntimeError):  # RuntimeError: no home directory is known
        made = tempfile.mkdtemp(prefix="zig-cache-")
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        return Path(made)


def _load(path: Path) -> ModuleType:
    """Run a module by its path: importing it by name would run the package's `__init__` first."""
    spec = importlib.util.spec_from_file_location(f"_wali_build_{path.stem}", path)
    if spec is None or spec.loader is None or not path.exists():
        raise BuildError(f"{path} is missing: this source tree is not complete.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Build core and shim in this source tree; return an exit status."""
    try:
        build_all(host_arch())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
