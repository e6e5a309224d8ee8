"""Every attack is refused by the core, and succeeds on a core without what refuses it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import Attack, Breakage
from tests.escape.broken import all_attacks, launch

if TYPE_CHECKING:
    from tests.escape.evil import EvilHost, Worlds

ATTACKS = all_attacks()
every_attack = pytest.mark.parametrize(
    "attack", [pytest.param(attack, id=name) for name, attack in ATTACKS.items()]
)


@every_attack
def test_attack_is_refused(attack: Attack, evil_host: EvilHost, worlds: Worlds) -> None:
    """The answer is the right errno, nothing is gained, and nothing outside has changed."""
    answer, gained, anything = launch(evil_host, attack, worlds)

    assert answer == -attack.errno
    assert not gained
    assert not anything


@every_attack
def test_attack_succeeds_without_what_refuses_it(
    attack: Attack, on_broken_core: dict[Breakage, dict[str, tuple[int, bool]]]
) -> None:
    """On a core broken on purpose it gains what it is after, unless somebody else stops it."""
    if attack.needs_root and os.geteuid():
        pytest.skip("the kernel lets only root")
    gained = {core: results[attack.name][1] for core, results in on_broken_core.items()}

    assert gained == {
        Breakage.CAPABILITY: attack.falls_with is Breakage.CAPABILITY,
        Breakage.LISTS: attack.falls_with is not Breakage.NOTHING,
    }
