"""Command-line options, in the few forms that ``wali`` has.

argparse would be a third of the start-up time of ``wali run``; this reads ``--name value`` and
``--name=value`` up to the first word that is not an option, which is how ``run`` must read them
anyway: everything after the program's name belongs to the program.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

VALUE: Final = "value"
"""An option that may be given once."""

VALUES: Final = "values"
"""An option that may be given again and again."""

SWITCH: Final = "switch"
"""An option without a value."""


class OptionError(Exception):
    """The command line cannot be understood."""


class Options:
    """What was given: ``options["timeout"]`` (None, if not), ``options.all("dir")``."""

    def __init__(self, found: Mapping[str, list[str]], rest: Sequence[str]) -> None:
        self._found = found
        self.rest = list(rest)

    def __getitem__(self, name: str) -> str | None:
        values = self._found.get(name)
        return values[-1] if values else None

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def all(self, name: str) -> list[str]:
        """Every value of a repeatable option, in order."""
        return self._found.get(name, [])


def parse(words: Sequence[str], kinds: Mapping[str, str]) -> Options:
    """Read options up to the first other word, or ``--``.  Raises ``OptionError``."""
    found: dict[str, list[str]] = {}
    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] != "-":
        word = words[position]
        position += 1
        if word == "--":
            break
        name, equals, value = word[2:].partition("=")
        if not word.startswith("--") or name not in kinds:
            raise OptionError(_unknown(word, kinds))
        if kinds[name] == SWITCH:
            if equals:
                raise OptionError(f"--{name} takes no value")
        elif not equals:
            if position == len(words):
                raise OptionError(f"--{name} needs a value")
            value = words[position]
            position += 1
        if name in found and kinds[name] == VALUE:
            raise OptionError(f"--{name} is given twice")
        found.setdefault(name, []).append(value)
    return Options(found, words[position:])


def _unknown(word: str, kinds: Mapping[str, str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word.partition("=")[0], [f"--{name}" for name in kinds], 1)
    return f"unknown option {word}" + (f": did you mean {close[0]}?" if close else "")
