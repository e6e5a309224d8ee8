"""What holds a WALI program: the gate, and the kernel.

A policy says what is granted; here it becomes the errno of every call that is not, and the rules
that the kernel is given for the thread that will run the program.
"""

from __future__ import annotations

import errno
import os

from wali_core._errors import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    from capabilities import Policy
    from capabilities.lockdown import Lockdown
    from wali_core._bridge import Core
    from wali_core._grants import Preopen

NETWORK_CONNECT, NETWORK_LISTEN, NETWORK_ANY = 1, 2, 4

_READS_ENVIRONMENT: Final = frozenset(("access", "open", "openat", "faccessat", "fstat"))


class Confinement:
    """Decided before the program's first instruction; ``commit`` is the last thing before it.

    ``gate`` maps ``"SYS_name"`` to the errno of a call that is held back; ``network`` says what
    sockets there may be.
    """

    def __init__(self, gate: dict[str, int], network: int, lockdown: Lockdown | None) -> None:
        self.gate = gate
        self.network = network
        self._lockdown = lockdown

    def commit(self) -> None:
        """Confine the calling thread, for good.  Raises ``PolicyError`` if the kernel refuses.

        The process is the program's own: its limits are lowered as well.
        """
        if self._lockdown is None:
            return
        from capabilities.lockdown import LockdownError, rlimits

        try:
            rlimits.lower(core=0)
            self._lockdown.commit()
        except LockdownError as error:
            raise PolicyError(str(error)) from error


def unconfined() -> Confinement:
    """``--allow-all``, and trusted programs in the embedder's process."""
    return Confinement({}, NETWORK_ANY, None)


def confine(
    policy: Policy | None, preopens: Iterable[Preopen], core: Core, *, environment: bool = False
) -> Confinement:
    """What a policy and the caller's directories come to.  Without either: nothing is granted.

    With an ``environment`` the program must open the file that holds it, as WALI has it.

    Raises ``PolicyError`` where the policy names what does not exist, or the kernel cannot do what
    it requires.
    """
    import capabilities
    from capabilities.lockdown import METADATA_WRITERS, Lockdown, LockdownError

    base = capabilities.Policy.none() if policy is None else policy
    try:
        base.require_host_paths()
        granted = _with_directories(base, preopens)
        catalogue = {
            name.removeprefix("SYS_"): row.group.decode()
            for (module, name), row in core.calls.items()
            if module == "wali" and name.startswith("SYS_")
        }
        # Landlock has no hook for metadata: without a view of its own, a program that may call
        # chmod may call it on every file of its user's.
        calls = granted.granted_calls(catalogue) - METADATA_WRITERS
        programs = [grant.host for grant in granted.filesystem.exec]
        lockdown = Lockdown.prepare(granted, calls=calls, exec_paths=programs)
        if environment and granted.lockdown == "required":
            calls |= _READS_ENVIRONMENT  # of files, the kernel lets it open no other
    except (capabilities.PolicyError, LockdownError) as error:
        raise PolicyError(str(error)) from error
    refusal: int = getattr(errno, granted.syscalls.on_deny, errno.EPERM)
    gate = {f"SYS_{name}": refusal for name in catalogue if name not in calls}
    network = NETWORK_CONNECT * bool(granted.network.connect)
    network |= NETWORK_LISTEN * bool(granted.network.listen)
    return Confinement(gate, network, lockdown)


def _with_directories(policy: Policy, preopens: Iterable[Preopen]) -> Policy:
    """The policy with the caller's directories granted as well."""
    import attrs

    from capabilities import Grant

    lists: dict[bool, list[Grant]] = {True: [], False: []}
    for preopen in preopens:
        host = os.path.realpath(preopen.host)
        if os.path.realpath(preopen.guest) != host:
            raise PolicyError(
                f"directory {preopen.guest!r}: a WALI program sees the host's own paths, so "
                f"{preopen.host} cannot have another name: grant it as {preopen.host}"
            )
        lists[preopen.read_only].append(Grant(host, host, read_write=not preopen.read_only))
    files = policy.filesystem
    return attrs.evolve(
        policy,
        filesystem=attrs.evolve(
            files,
            read_only=(*files.read_only, *lists[True]),
            read_write=(*files.read_write, *lists[False]),
        ),
    )
