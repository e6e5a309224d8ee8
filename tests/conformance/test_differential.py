"""The same sequences of WASI calls on this library and on wasmtime's own WASI.

Errnos, outputs and, in the end, both directories must be the same. What differs on purpose is in
`compatibility`, and in docs/compatibility.md. The default run is short and always the same;

    WALI_DIFFERENTIAL=20000 python -m pytest tests/conformance/test_differential.py

makes that many sequences, new ones each time (`--hypothesis-seed` repeats a run).
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import re
import shutil
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import given

from tests.conformance import compatibility
from tests.conformance.compatibility import RULES, Rule, settle
from tests.conformance.sequences import sequences
from tests.conformance.twins import Call, Engines, Twins
from wali_core import Runtime
from wasi_shim import WasiAbi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VARIABLE = "WALI_DIFFERENTIAL"
DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"
EXAMPLES, MOST_ROWS = 120, 25

SETTINGS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(hypothesis.HealthCheck),
}


class Worlds:
    """Makes twins, each in a fresh folder."""

    def __init__(self, engines: Engines, folder: Path) -> None:
        self._engines, self._folder, self._count = engines, folder, itertools.count()

    def run(self, sequence: list[Call]) -> None:
        """Make the calls; fails at the first difference that is not documented."""
        folder = self._folder / str(next(self._count))
        twins = Twins(self._engines, folder)
        try:
            for index, call in enumerate(sequence):
                outcome = settle(twins, call)
                assert outcome.agreed, (
                    f"here {outcome.ours}, in wasmtime {outcome.theirs}, "
                    f"after {sequence[: index + 1]}"
                )
            ours, theirs = twins.trees()
            assert ours == theirs, f"after {sequence}"
        finally:
            twins.close()
            shutil.rmtree(folder)

    def twins(self) -> Twins:
        """Make twins that are the caller's to close."""
        return Twins(self._engines, self._folder / str(next(self._count)))


@pytest.fixture(scope="module", params=["openat2", "walk"])
def worlds(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worlds]:
    """Return what makes twins; once for each way to resolve paths."""
    folder = tmp_path_factory.mktemp("worlds")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "walk":
            walking = partialmethod(WasiAbi.configuration, manual_walk=True)
            patch.setattr(WasiAbi, "configuration", walking)
        with Runtime(cache=folder / "cache") as runtime:
            yield Worlds(Engines(runtime), folder)


@pytest.mark.slow
def test_sequences_agree(worlds: Worlds) -> None:
    """Both sides answer every call alike and leave the same directories behind."""

    @hypothesis.settings(max_examples=EXAMPLES, derandomize=True, **SETTINGS)
    @given(sequences)
    def agree(sequence: list[Call]) -> None:
        worlds.run(sequence)

    agree()


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"set {VARIABLE} to a number of sequences")
def test_many_sequences_agree(worlds: Worlds, report_figure: Callable[[str], None]) -> None:
    """The same for as many sequences as the environment says."""
    faulthandler.cancel_dump_traceback_later()  # pytest's: it takes as long as it takes
    calls = 0

    @hypothesis.settings(max_examples=int(os.environ[VARIABLE]), **SETTINGS)
    @given(sequences)
    def agree(sequence: list[Call]) -> None:
        nonlocal calls
        worlds.run(sequence)
        calls += len(sequence)

    agree()
    report_figure(f"differential: {os.environ[VARIABLE]} sequences, {calls} calls")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_difference_is_real(worlds: Worlds, rule: Rule) -> None:
    """What the replay of a row shows still differs: a row that is out of date fails."""
    twins = worlds.twins()
    try:
        for call in rule.replay[:-1]:
            ours, theirs = twins.call(call)
            assert compatibility.agree(twins, call, ours, theirs), call
            twins.follow(call, ours, theirs)
        call = rule.replay[-1]
        assert not compatibility.agree(twins, call, *twins.call(call))
    finally:
        twins.close()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_difference_is_known(worlds: Worlds, rule: Rule) -> None:
    """With its rule, and no other, the replay of a row agrees."""
    twins = worlds.twins()
    try:
        outcomes = [settle(twins, call) for call in rule.replay]
        assert all(outcome.agreed for outcome in outcomes)
        assert {name for outcome in outcomes for name in outcome.applied} <= {rule.name}
        assert twins.trees()[0] == twins.trees()[1]
    finally:
        twins.close()


def test_document_has_each_difference() -> None:
    """The table says what the rules do, in their order, and is short."""
    rows = [
        tuple(re.split(r" \| ", line.strip("| \n")))
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("| ")
    ]
    expected = [
        (rule.name, rule.here, rule.there, rule.why, "; ".join(f"`{call}`" for call in rule.replay))
        for rule in RULES
    ]
    assert rows[2:] == expected
    assert len(expected) <= MOST_ROWS
