"""The hatchling hook that compiles the core and the shim into wheels and editable installs."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from types import ModuleType


class NativeBuildHook(BuildHookInterface[Any]):
    """Compile before the files are collected, and tag the wheel for what was compiled.

    A wheel's objects are built outside the source tree: a wheel for another architecture must not
    replace the objects that an editable install in the same tree is using.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build for `version` ("standard" or "editable"), or end with one clear message."""
        compiler = _load_compiler(Path(self.root))
        try:
            arch = compiler.target_arch()
            if version == "editable":
                _build_in_place(compiler, arch)
            else:
                self._build_aside(compiler, arch, build_data)
        except compiler.BuildError as error:
            self.app.abort(str(error))
            raise
        build_data["pure_python"] = False
        build_data["tag"] = _tag(arch)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what `initialize` built outside the tree."""
        del version, build_data, artifact_path
        if directory := getattr(self, "_directory", None):
            shutil.rmtree(directory)

    def _build_aside(self, compiler: ModuleType, arch: str, build_data: dict[str, Any]) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="wali-wheel-"))
        core = compiler.build_core(self._directory / compiler.CORE.name, arch=arch)
        shim = compiler.build_shim(self._directory / compiler.SHIM.name)
        for built, place in ((core, compiler.CORE), (shim, compiler.SHIM)):
            build_data["force_include"][str(built)] = str(place.relative_to(compiler.ROOT))


def _build_in_place(compiler: ModuleType, arch: str) -> None:
    if arch != compiler.host_arch():
        raise compiler.BuildError(
            f"WALI_ARCH is {arch!r}: an editable install cannot be for another machine."
        )
    compiler.build_all(arch)


def _tag(arch: str) -> str:
    # One wheel for glibc and musl, since the core needs no C library. 2.17 and 1.1 are the oldest
    # that pip knows by these names.
    return f"py3-none-manylinux_2_17_{arch}.manylinux2014_{arch}.musllinux_1_1_{arch}"


def _load_compiler(root: Path) -> ModuleType:
    """Load compile.py by its path: the package around it is not installed yet."""
    path = root / "wali_core" / "native" / "compile.py"
    spec = importlib.util.spec_from_file_location("_wali_build_compile", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
