"""The evil shim, compiled once, and the cores that it meets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.escape import broken
from tests.escape.attack import Breakage
from tests.escape.evil import EvilHost, Worlds, relays
from tests.escape.wasi_guest import WasiHost
from wali_core import _bridge
from wali_core.native.compile import compile_guest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.escape.evil import Evil, World
    from tests.wasi_shim.calls import Wasi

FLAGS = ("-Wall", "-Wextra", "-Werror", "-Wl,-z,stack-size=16384")


@pytest.fixture(scope="session")
def evil_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile module."""
    source = Path(__file__).parent / "evil_shim.c"
    folder = tmp_path_factory.mktemp("evil")
    (folder / "relays.gen.h").write_text(relays())
    flags = (*FLAGS, f"-I{folder}")
    return compile_guest(
        source, folder / "evil_shim.wasm", target="wasm32-freestanding", flags=flags
    )


@pytest.fixture(scope="session")
def evil_host(evil_shim: Path) -> Iterator[EvilHost]:
    """A runtime of the real core, with the evil shim in the real one's place."""
    host = EvilHost(evil_shim, _bridge.core)
    yield host
    host.close()


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """Worlds to be borrowed."""
    made = Worlds(tmp_path_factory.mktemp("worlds"))
    yield made
    made.close()


@pytest.fixture
def world(worlds: Worlds) -> Iterator[World]:
    """What is granted, and what is not."""
    with worlds.lend() as made:
        yield made


@pytest.fixture
def evil(evil_host: EvilHost, world: World) -> Iterator[Evil]:
    """A hostile guest that holds the box and the shelf."""
    with evil_host.enter(world) as guest:
        yield guest


@pytest.fixture(scope="session")
def wasi_hosts() -> Iterator[dict[str, WasiHost]]:
    """Runtimes with the real shim, by the way in which it resolves paths."""
    hosts = {way: WasiHost(manual_walk=way == "walk") for way in ("openat2", "walk")}
    yield hosts
    for host in hosts.values():
        host.close()


@pytest.fixture(params=["openat2", "walk"])
def wasi(
    request: pytest.FixtureRequest, wasi_hosts: dict[str, WasiHost], world: World
) -> Iterator[Wasi]:
    """A guest, once for each way to resolve paths."""
    with wasi_hosts[request.param].enter(world) as guest:
        yield guest


@pytest.fixture(scope="session")
def wasi_host(wasi_hosts: dict[str, WasiHost]) -> WasiHost:
    """A runtime with the real shim."""
    return wasi_hosts["openat2"]


@pytest.fixture(scope="session")
def on_broken_core(
    evil_shim: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[Breakage, dict[str, tuple[int, bool]]]:
    """What every attack gets on each broken core: its answer, and whether it gained."""
    folder = tmp_path_factory.mktemp("broken")
    found = {}
    for breakage in (Breakage.CAPABILITY, Breakage.LISTS):
        core = broken.build(folder / f"{breakage.name.lower()}.so", breakage)
        found[breakage] = broken.launch_often(core, evil_shim)
    return found
