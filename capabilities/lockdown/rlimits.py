"""Limits of the kernel's (getrlimit(2)) that a guest's process gets: they can be lowered here only.

They hold the whole process, where `Lockdown` holds a thread: they are for a process that runs one
guest and nothing else.
"""

from __future__ import annotations

import resource

from capabilities._errors import LockdownError


def lower(
    *,
    core: int | None = 0,
    open_files: int | None = None,
    file_size: int | None = None,
    processes: int | None = None,
    cpu_time: int | None = None,
) -> None:
    """Lower limits of this process, soft and hard, so that it cannot raise them again unprivileged.

    One that is tighter already stays as it is, and None leaves a limit alone.

    Args:
        core: bytes of a core dump, which would hold the guest's memory and the host's: none. Where
            dumps go to a program (core(5)), it is up to that program to heed it.
        open_files: descriptors, counted from 0; those that are open already stay.
        file_size: bytes of the largest file that can be written.
        processes: processes and threads of the user; it does not hold root.
        cpu_time: seconds.

    Raises:
        LockdownError: the kernel refused.
    """
    for name, limit in (
        ("RLIMIT_CORE", core),
        ("RLIMIT_NOFILE", open_files),
        ("RLIMIT_FSIZE", file_size),
        ("RLIMIT_NPROC", processes),
        ("RLIMIT_CPU", cpu_time),
    ):
        if limit is None:
            continue
        if limit < 0:  # that would be no limit at all
            raise LockdownError([f"{name} cannot be lowered to {limit}: it must not be negative"])
        number: int = getattr(resource, name)
        soft, hard = resource.getrlimit(number)
        try:
            resource.setrlimit(number, (_least(limit, soft), _least(limit, hard)))
        except (OSError, ValueError, OverflowError) as error:
            raise LockdownError([f"{name} cannot be lowered to {limit}: {error}"]) from error


def _least(limit: int, current: int) -> int:
    return limit if current == resource.RLIM_INFINITY else min(limit, current)
