"""Tests of wali_core._abi: which interface a module was made for, and who serves it."""

from __future__ import annotations

import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime

import wasi_shim
from wali_core import ModuleError, Runtime
from wali_core import _abi as abi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wali_core._engine import Module

WASI = "wasi_snapshot_preview1"


@pytest.fixture
def importing(runtime: Runtime) -> Callable[..., Module]:
    """Return a function that compiles a module which imports from the modules that it names."""

    def compile_importing(*names: str) -> Module:
        imports = " ".join(f'(import "{name}" "f" (func))' for name in names)
        data = bytes(wasmtime.wat2wasm(f"(module {imports})"))
        return runtime.engine.compile(data, "m.wasm", None)

    return compile_importing


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that installs a package which serves an import module."""

    def offer(name: str, package: str, **contents: Any) -> None:
        points = [SimpleNamespace(name=name, value=f"{package}:abi")]
        known = importlib.metadata.entry_points

        def entry_points(**wanted: str) -> Any:
            if wanted == {"group": "wali.abi", "name": name}:
                return points
            return known(**wanted)

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
        module = ModuleType(package)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, package, module)

    return offer


# --- which interface ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "interface"),
    [
        ((), None),
        ((WASI,), WASI),
        (("wasi_unstable",), "wasi_unstable"),
        ((WASI, WASI), WASI),
        ((WASI, "wasi_unstable"), WASI),
        (("wali",), "wali"),
    ],
)
def test_the_interface_is_what_a_module_imports(
    names: tuple[str, ...], interface: str | None, importing: Callable[..., Module]
) -> None:
    """A module's interface is the one that it imports from; both of WASI's names are one."""
    assert abi.interface_of(importing(*names)) == interface


@pytest.mark.parametrize(
    "names",
    [
        ("env",),
        ("",),
        ("WASI_SNAPSHOT_PREVIEW1",),
        ("wasi_snapshot_preview2",),
        ("guest",),
        ("wali_guest",),
    ],
)
def test_other_interfaces_are_refused(
    names: tuple[str, ...], importing: Callable[..., Module]
) -> None:
    """A module that imports from elsewhere is refused, with an example and what is served."""
    for others in ((), (WASI,)):
        with pytest.raises(ModuleError) as caught:
            abi.interface_of(importing(*others, *names))
        assert str(caught.value) == (
            f"m.wasm: imports {names[0]}.f: wali serves only the modules "
            f"{WASI}, wasi_unstable and wali"
        )


@pytest.mark.parametrize("other", [WASI, "wasi_unstable"])
def test_no_module_has_two_interfaces(other: str, importing: Callable[..., Module]) -> None:
    """A module that could name raw system calls as well would not be confined by a shim."""
    with pytest.raises(ModuleError, match=f"imports both wali and {other}: .* one of them only"):
        abi.interface_of(importing("wali", other))


# --- who serves it --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WASI, "wasi_unstable"])
def test_wasi_is_served_by_its_package(name: str) -> None:
    """Both of WASI's names are served by the same shim."""
    assert abi.shim_for(name) is wasi_shim.abi
    assert name in wasi_shim.abi.modules


def test_wasi_is_found_without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """For WASI no distribution's metadata is read."""
    monkeypatch.setattr(importlib.metadata, "entry_points", None)

    assert abi.shim_for(WASI) is wasi_shim.abi


def test_a_package_can_serve_another_interface(
    offered: Callable[..., None], importing: Callable[..., Module]
) -> None:
    """An installed package serves an import module that the core has not heard of."""
    shim = object()
    offered("my_interface", "my_package", abi=shim)

    assert abi.interface_of(importing("my_interface")) == "my_interface"
    assert abi.shim_for("my_interface") is shim


def test_two_packages_do_not_serve_one_module(
    offered: Callable[..., None], importing: Callable[..., Module]
) -> None:
    """A module whose imports would need two shims is refused: there is one to a guest."""
    offered("my_interface", "my_package", abi=object())

    for names in (("my_interface", WASI), (WASI, "my_interface", "wasi_unstable")):
        with pytest.raises(ModuleError, match=f"imports both my_interface and {WASI}: "):
            abi.interface_of(importing(*names))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the shim is not installed, the error says what is missing."""
    monkeypatch.setitem(sys.modules, "wasi_shim", None)

    with pytest.raises(ModuleError, match=f"serves {WASI}: the package wasi_shim"):
        abi.shim_for(WASI)


def test_a_package_without_a_shim_is_named(offered: Callable[..., None]) -> None:
    """Where the package has no shim to offer, that is the same error."""
    offered("my_interface", "my_package")

    with pytest.raises(ModuleError, match=r"serves my_interface: .* my_package"):
        abi.shim_for("my_interface")


def test_an_unbuilt_shim_is_named(
    runtime: Runtime, program: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the shim was not compiled, the error says how to do that."""
    monkeypatch.setattr("wasi_shim._abi.__file__", str(tmp_path / "_abi.py"))

    with pytest.raises(FileNotFoundError, match="has not been built"):
        runtime.instantiate(program)
