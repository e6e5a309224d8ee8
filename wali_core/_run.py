"""Running a program once, without a runtime of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wali_core._runtime import Runtime

if TYPE_CHECKING:
    import os

    from wali_core._result import CompletedGuest


async def run(
    module: str | os.PathLike[str] | bytes,
    *,
    policy: Any = None,
    allow_all: bool = False,
    cache: bool | str | os.PathLike[str] = True,
    **options: Any,
) -> CompletedGuest:
    """``Runtime.run`` with a runtime of its own: see there for the options."""
    with Runtime(policy=policy, allow_all=allow_all, cache=cache) as runtime:
        return await runtime.run(module, **options)


def run_sync(
    module: str | os.PathLike[str] | bytes,
    *,
    policy: Any = None,
    allow_all: bool = False,
    cache: bool | str | os.PathLike[str] = True,
    **options: Any,
) -> CompletedGuest:
    """``Runtime.run_sync`` with a runtime of its own: see there for the options.

    A program that is run often is better run by one ``Runtime``.
    """
    with Runtime(policy=policy, allow_all=allow_all, cache=cache) as runtime:
        return runtime.run_sync(module, **options)
