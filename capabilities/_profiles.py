"""The policies that come with the package, by name."""

from __future__ import annotations

import os

from ._errors import PolicyError
from ._model import Problem
from ._values import PROFILE

_FOLDER = os.path.join(os.path.dirname(__file__), "profiles")
_SUFFIX = ".toml"


def names() -> tuple[str, ...]:
    """List the profiles, sorted."""
    files = sorted(os.listdir(_FOLDER))
    return tuple(file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX))


def profile_named(text: str) -> str | None:
    """Return `"profile:NAME"` for a bare name that is one; None for what must be a file's path.

    A file of that name is `./NAME`.

    Raises:
        PolicyError: it is a bare name, and neither a profile nor a file.
    """
    if "/" in text or "." in text or text.startswith(PROFILE):
        return None
    known = names()
    if text in known:
        return f"{PROFILE}{text}"
    if not os.path.exists(text):
        message = f"there is no such file, nor a profile: there are {', '.join(known)}"
        raise PolicyError([Problem(text, "", message)])
    return None


def path(reference: str) -> str:
    """Return the path of the file that `"profile:NAME"` means.

    Raises:
        PolicyError: there is no such profile.
    """
    name, known = reference.removeprefix(PROFILE), names()
    if name not in known:
        message = f"there is no such profile: there are {', '.join(known)}"
        raise PolicyError([Problem(reference, "", message)])
    return os.path.join(_FOLDER, f"{name}{_SUFFIX}")
