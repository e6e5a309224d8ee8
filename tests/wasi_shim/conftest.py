"""Guests to call WASI with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

import wasi_shim
from tests.wasi_shim.calls import Wasi, caller
from wali_core import Runtime
from wasi_shim import WasiAbi

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class ConfiguredAbi(WasiAbi):
    """The shim with options that the core does not set."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    def configuration(
        self,
        args: Sequence[bytes],
        env: Sequence[bytes],
        preopens: Sequence[tuple[int, bytes, bool]],
        datagrams: Sequence[int] = (),
        **options: Any,
    ) -> bytes:
        """Encode as ever, with the options added."""
        return super().configuration(args, env, preopens, datagrams, **self._options, **options)


class Runtimes:
    """Runtimes by the shim's options; each compiles the shim once."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._made: dict[frozenset[str], Runtime] = {}

    def get(self, options: frozenset[str]) -> Runtime:
        """Return the runtime whose shim has these options."""
        if options not in self._made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(wasi_shim, "abi", ConfiguredAbi(**dict.fromkeys(options, True)))
                runtime = Runtime(cache=self._cache)
                for interface in wasi_shim.abi.modules:
                    runtime.instantiate(caller(interface), stdio=(-1, -1, -1)).close()
            self._made[options] = runtime
        return self._made[options]

    def close(self) -> None:
        """Close them all."""
        for runtime in self._made.values():
            runtime.close()


class Start(Protocol):
    """Starts a guest; see `start`."""

    def __call__(
        self,
        dirs: dict[str, Any] | None = None,
        *,
        strict: bool = False,
        manual_walk: bool = False,
        interface: str = "wasi_snapshot_preview1",
        stdio: Sequence[int] = (-1, -1, -1),
        **options: Any,
    ) -> Wasi:
        """Return the functions of a new guest."""


@pytest.fixture(scope="session")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtimes]:
    """Share runtimes between all tests."""
    made = Runtimes(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


@pytest.fixture
def start(runtimes: Runtimes) -> Iterator[Start]:
    """Return a function that starts a guest, which is closed after the test."""
    started: list[Wasi] = []

    def start_guest(
        dirs: dict[str, Any] | None = None,
        *,
        strict: bool = False,
        manual_walk: bool = False,
        interface: str = "wasi_snapshot_preview1",
        stdio: Sequence[int] = (-1, -1, -1),
        **options: Any,
    ) -> Wasi:
        runtime = runtimes.get(frozenset({"manual_walk"} if manual_walk else ()))
        guest = runtime.instantiate(
            caller(interface), dirs=dirs, stdio=stdio, strict_rights=strict, **options
        )
        started.append(Wasi(guest))
        return started[-1]

    yield start_guest
    for wasi in started:
        wasi.guest.close()


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """Return an empty directory for the guest, with a secret beside it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "box").mkdir()
    return tmp_path / "box"


@pytest.fixture(params=["openat2", "walk"])
def wasi(request: pytest.FixtureRequest, start: Start, box: Path) -> Wasi:
    """Return a guest with the box, writable, as 3; once for each way to resolve paths."""
    return start({"/": (str(box), "rw")}, manual_walk=request.param == "walk")


@pytest.fixture
def wasi_read_only(start: Start, box: Path) -> Wasi:
    """Return a guest with the box, read-only, as 3."""
    return start({"/": (str(box), "ro")})
