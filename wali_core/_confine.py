"""What holds a guest whose process is its own: the gate, the view, and the kernel.

A policy says what is granted.  Here a WALI program's becomes the errno of every call that is not, a
view in which nothing else exists, and the rules that the kernel is given for the thread that will
run it.  A WASI guest is held by its shim and the core already; its process loses what it does not
need all the same.
"""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR

from wali_core._errors import PolicyError
from wali_core._filter import Sockets, allowed
from wali_core._grants import (
    PROCFS_REACHED,
    beneath,
    procfs_of,
    reaches_proc,
    refuse_missing,
)
from wali_core._stdio import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Final

    from capabilities import Policy
    from capabilities.lockdown import Lockdown
    from capabilities.lockdown.view import Bind, View
    from wali_core._bridge import Core
    from wali_core._grants import Grants, Preopen
    from wali_core._link import Hook
    from wali_core.programs._environment import EnvironmentFile

NETWORK_CONNECT, NETWORK_LISTEN, NETWORK_ANY, NETWORK_UNIX = 1, 2, 4, 8

_SETS_USERS: Final = frozenset(("setuid", "setreuid", "setresuid"))
_SETS_GROUPS: Final = frozenset(("setgid", "setregid", "setresgid", "setgroups"))
_LANDLOCK_RENAMES: Final = 2
_AT_EMPTY_PATH: Final = 0x1000
_READS_ENVIRONMENT: Final = frozenset(("access", "open", "openat", "faccessat", "fstat"))


class Confinement:
    """Decided before the program's first instruction; ``commit`` is the last thing before it.

    ``gate`` maps ``"SYS_name"`` to the errno of a call that is held back; ``network`` says what
    sockets there may be; ``programs`` names the folders and files from which Wasm can be executed,
    None for all; ``place`` puts an environment where the program can open it, which takes hooks
    around its calls where that is an ``environment``.  ``withheld`` are calls that nearly every
    program makes and this one may not, and why each.  ``procfs`` says what the core is to do about
    /proc/PID/mem.
    """

    def __init__(
        self,
        gate: dict[str, int],
        network: int,
        lockdown: Lockdown | None,
        programs: Sequence[str] | None = (),
        place: Callable[[bytes], str] | None = None,
        environment: EnvironmentFile | None = None,
        procfs: int = PROCFS_REACHED,
    ) -> None:
        self.gate = gate
        self.withheld: Mapping[str, str] = {}
        self.programs = programs
        self.network = network
        self.place = environment.place if environment else place
        self.environment = environment
        self.procfs = procfs
        self._lockdown = lockdown

    def explain(self) -> list[str]:
        """Who closes which door, line by line, and what is left open."""
        return ["open: nothing is confined"] if self._lockdown is None else self._lockdown.explain()

    def commit(self) -> None:
        """Confine the calling thread, for good.  Raises ``PolicyError`` if the kernel refuses."""
        if self._lockdown is None:
            return
        from capabilities.lockdown import LockdownError

        try:
            self._lockdown.commit()
        except LockdownError as error:
            raise PolicyError(str(error)) from error


def unconfined() -> Confinement:
    """``--allow-all``, and trusted programs in the embedder's process."""
    return Confinement({}, NETWORK_ANY, None, programs=None, procfs=procfs_of(absent=False))


def bound_privileges(policy: Policy | None) -> None:
    """In a process that forks confined programs: give up what none of them will have."""
    from capabilities.lockdown import privileges

    if policy is None or policy.lockdown != "off" or policy.view == "required":
        others = privileges.NET_BIND_SERVICE, privileges.SETUID, privileges.SETGID
        privileges.bound((*privileges.OF_FILES, *others))


def claim_view(policy: Policy | None) -> None:
    """Prepare this process for a view, while it has one thread.  Raises ``PolicyError``.

    Whether there can be one, ``confine`` and ``enclose`` find.  They would prepare it as well, but
    come after a compilation, which leaves threads.
    """
    if policy is not None and policy.view == "off":
        return
    from capabilities.lockdown import LockdownError, view

    try:
        view.claim()
    except LockdownError as error:
        raise PolicyError(str(error)) from error


# --- WALI programs --------------------------------------------------------------------------------


def confine(
    policy: Policy | None,
    grants: Grants,
    core: Core,
    *,
    environment: bytes | None = None,
    on_fallback: Callable[[str], None] | None = None,
) -> Confinement:
    """What a policy and the caller's directories come to.  Without either: nothing is granted.

    The thread moves into its view now, where it can have one; if not, ``on_fallback`` is told.
    ``environment`` is what the program must find in the file that WALI has for it.

    Raises ``PolicyError`` where the policy names what does not exist, or the kernel cannot do what
    it requires.
    """
    import capabilities
    import wali_core._table  # for later: in a view there is no file of it
    from capabilities.lockdown import METADATA_WRITERS, LockdownError, rlimits, view
    from wali_core.programs._environment import EnvironmentFile

    base = capabilities.Policy.none() if policy is None else policy
    if base.filesystem.exec:
        import wali_core.rewriting._polls  # noqa: F401 - for Wasm that is executed: the same
    grants.settle(policy)
    trees, cwd = grants.for_programs(base)
    refuse_missing((*trees, *grants.exec, *grants.unix))
    granted = grants.in_all(base, trees, lambda one: one.place)
    catalogue = core.catalogue()
    try:
        calls = granted.reachable_calls(catalogue)
        places = _binds_of(granted)
        with_proc = [place.host for place in places if reaches_proc(place.host)]
        if with_proc and granted.view != "off":
            _refuse_threads(with_proc[0])
        rlimits.lower(core=0)
        again = "execve" in calls
        inside = _enter(granted, places, cwd, environment, on_fallback, again=again)
        # Landlock has no hook for metadata: without a view, a program that may call chmod may call
        # it on every file of its user's; with procfs in it, on those that links there lead to.
        if inside is None or with_proc:
            calls -= METADATA_WRITERS
        unplaced = None
        if environment is not None:
            if not _has_place(granted, calls, inside):
                unplaced = EnvironmentFile(view.environment_path())
            # Of files there is no other that it could open by these, if it is not held back anyway.
            calls |= {"fstat"} if unplaced else _READS_ENVIRONMENT
        sockets = _sockets(granted, seen=inside is not None)
        lockdown = _prepared(granted, calls, inside, sockets)
    except (capabilities.PolicyError, LockdownError) as error:
        raise PolicyError(str(error)) from error
    refusal: int = getattr(errno, granted.syscalls.on_deny, errno.EPERM)
    gate = {f"SYS_{name}": refusal for name in catalogue if name not in calls}
    # By their names in the view, which is where they are looked for.
    programs = tuple(grant.guest for grant in granted.filesystem.exec)
    place = inside.place_environment if inside and inside.environments else None
    network = _network(sockets, granted)
    procfs = procfs_of(absent=inside is not None and not with_proc)
    confinement = Confinement(gate, network, lockdown, programs, place, unplaced, procfs)
    withheld = granted.withheld_calls(catalogue).items()
    confinement.withheld = {name: f"{key} of {granted.source}" for name, key in withheld}
    return confinement


def foresee(policy: Policy | None, grants: Grants, core: Core) -> None:
    """Make what ``confine`` will need in a process that is forked from this one, as far as known.

    It is a guess, which costs time where it is wrong and nothing else.  What is wrong with the
    policy is left to be said there.
    """
    import capabilities
    from capabilities.lockdown import METADATA_WRITERS

    base = capabilities.Policy.none() if policy is None else policy
    if base.lockdown == "off":
        return
    seen = base.view != "off"
    try:
        granted = grants.in_all(base, grants.for_programs(base)[0], lambda one: one.full)
        calls = granted.reachable_calls(core.catalogue())
    except capabilities.PolicyError:
        return
    calls |= _READS_ENVIRONMENT if grants.env else frozenset()
    calls -= frozenset() if seen else METADATA_WRITERS
    allowed(calls, _sockets(granted, seen=seen))


def _has_place(policy: Policy, calls: AbstractSet[str], inside: View | None) -> bool:
    """Can the program open a file of its environment by a path?

    Not where there is none, nor where with the calls for it the program could open others.
    """
    from capabilities.lockdown import landlock

    if inside:
        return bool(inside.environments) or os.path.exists("/proc/self/fd")
    holds = policy.lockdown != "off" and landlock.abi_version() > 0
    return holds or calls >= _READS_ENVIRONMENT


def _binds_of(policy: Policy) -> list[Bind]:
    """All that a program is to find: directories and files, programs, devices and sockets.

    What can be executed may be granted as files as well, which is then the same place.
    """
    from capabilities import Grant
    from capabilities.lockdown.view import Bind

    trees = policy.filesystem.grants
    places = {g.guest: Bind(g.host, g.guest, writable=g.read_write) for g in trees}
    found = []
    for grant in policy.filesystem.exec:
        # What lies in another tree is a mount of its own, and may no less than that.
        writable = False
        for place in places.values():
            tree = Grant(place.host, place.guest)
            place.executable |= grant.covers(tree)
            writable |= place.writable and tree.covers(grant)
        if grant.guest not in places:
            found.append(Bind(grant.host, grant.guest, writable=writable, executable=True))
    devices = policy.filesystem.named_devices
    # Read-only: what is written to them goes through all the same, and nobody changes their mode.
    found += [Bind(device.host, device.guest) for device in devices]
    found += [Bind(g.host, g.guest) for g in policy.network.unix if g.guest not in places]
    return [*places.values(), *found]


def _translated(places: Iterable[Bind]) -> str:
    """This process's working directory, as the program has it; the root where it has none."""
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed
        return "/"
    around = [(place.host, place.guest) for place in places if beneath(here, place.host)]
    if not around:
        return "/"
    host, guest = max(around, key=lambda pair: len(pair[0]))
    return os.path.normpath(f"{guest}/{here[len(host) :]}")


def _enter(
    policy: Policy,
    places: Sequence[Bind],
    cwd: str | None,
    environment: bytes | None,
    on_fallback: Callable[[str], None] | None,
    *,
    again: bool,
) -> View | None:
    """Move into a view, if the policy asks for one and it can be had.

    Programs may come to run in it ``again`` and again, each with an environment.
    """
    from capabilities.lockdown import LockdownError, view

    reason = 'the policy says view = "off"'
    if policy.view != "off":
        view.claim()
        try:
            where = cwd or _translated(places)
            return view.enter(places, cwd=where, environment=environment, rewritable=again)
        except view.Unavailable as error:
            reason = str(error)
            if policy.view == "required":
                raise LockdownError([f'view = "required" cannot be met: {reason}']) from error
        if on_fallback is not None:
            on_fallback(reason)
    _refuse_renaming(places, reason)
    if cwd is not None:
        os.chdir(cwd)
    return None


def refuse_directories(streams: Iterable[int]) -> None:
    """A stream that is a directory would be a way out: all that is beneath it, and above it."""
    for number, fd in enumerate(streams):
        if fd >= 0 and S_ISDIR(os.fstat(fd).st_mode):
            name = ("standard input", "standard output", "standard error")[number]
            raise PolicyError(f"{name} is a directory, which a confined program cannot be given")


def keep_streams(streams: Iterable[int], host_of: Callable[[int], int]) -> dict[str, Hook]:
    """Hooks for the calls that change what is said of an open file: not of what is at a stream.

    A program got it to read or write, and the kernel asks for no more than whose it is: not how it
    was opened, nor where it lies.  ``host_of`` gives the host's descriptor for a number.
    """
    kept = {identity(fd) for fd in streams if fd >= 0}

    def hook(path: int | None = None, flags: int | None = None) -> Hook:
        """For a call with a path and flags among its arguments, without which it is of a file."""

        def guard(arguments: Sequence[int], proceed: Callable[[], int]) -> int:
            by_path = path is not None and arguments[path]
            empty = flags is not None and arguments[flags] & _AT_EMPTY_PATH
            if (by_path and not empty) or arguments[0] < 0:
                return proceed()
            try:
                found = identity(host_of(arguments[0]))
            except OSError:
                return proceed()  # the call says what is wrong
            return -errno.EPERM if found in kept else proceed()

        return guard

    return {
        "SYS_fchmod": hook(),
        "SYS_fchown": hook(),
        "SYS_fchownat": hook(1, 4),
        "SYS_utimensat": hook(1, 3),
        "SYS_futimesat": hook(1),
    }


def _refuse_threads(host: str) -> None:
    """Other threads of this process keep the host's tree, to which procfs would lead."""
    if len(os.listdir("/proc/self/task")) > 1:
        raise PolicyError(
            f"{host} reaches procfs, by which a program could get at what other threads of this "
            "process see, and there are some: it must be started from a process with one"
        )


def _refuse_renaming(places: Iterable[Bind], reason: str) -> None:
    from capabilities.links import real

    for place in places:
        if real(place.guest) != real(place.host):
            raise PolicyError(
                f"{place.host} cannot be {place.guest} for a WALI program, which without a view of "
                f"its own sees the host's own paths: {reason}"
            )


def _prepared(
    policy: Policy, calls: Collection[str], inside: View | None, sockets: Sockets
) -> Lockdown:
    """What the kernel is to hold the program to."""
    from capabilities.lockdown import Lockdown, privileges, view

    environments = [inside.environments] if inside and inside.environments else []
    devices = [device.guest for device in policy.filesystem.named_devices]

    keep = {*privileges.OF_FILES}
    if policy.network.listen:
        keep.add(privileges.NET_BIND_SERVICE)
    if not _SETS_USERS.isdisjoint(calls):
        keep.add(privileges.SETUID)
    if not _SETS_GROUPS.isdisjoint(calls):
        keep.add(privileges.SETGID)
    return Lockdown.prepare(
        policy,
        read_only=environments,
        # Whoever is in the view can make no file there: its root is read-only.
        read_write=devices + (environments if inside and inside.rewritable else []),
        exec_paths=[grant.guest if inside else grant.host for grant in policy.filesystem.exec],
        calls=calls,
        inside=inside,
        rules=None if policy.lockdown == "off" else allowed(calls, sockets),
        # In a user namespace they were all gained by making it.
        keep=() if view.claimed() else keep,
    )


def _sockets(policy: Policy, *, seen: bool) -> Sockets:
    """What kinds there may be; unix sockets where a view shows those that are granted alone."""
    return Sockets(
        tcp=bool(policy.network.connect or policy.network.listen),
        listen=bool(policy.network.listen),
        unix=seen and bool(policy.network.unix),
    )


def _network(sockets: Sockets, policy: Policy) -> int:
    """What the core is to allow of sockets."""
    network = NETWORK_CONNECT * bool(policy.network.connect)
    return network | NETWORK_LISTEN * sockets.listen | NETWORK_UNIX * sockets.unix


# --- WASI guests ----------------------------------------------------------------------------------


def enclose(
    policy: Policy | None, preopens: Iterable[tuple[int, Preopen]], core: Core
) -> Confinement:
    """Move the process of a WASI guest into an empty view, and prepare the rest.

    The ``preopens`` are open already, by the descriptors that come with them.  All that they grant
    is held by the core: what the kernel cannot add is no reason not to run.
    """
    from capabilities.lockdown import Lockdown, LockdownError, privileges, rlimits, view

    off = policy is not None and policy.lockdown == "off"
    trees: dict[bool, list[int]] = {True: [], False: []}
    for fd, preopen in preopens:
        trees[preopen.read_only].append(fd)
    calls = {
        name.removeprefix("SYS_")
        for (_, name), row in core.calls.items()
        if row.capable or row.capable_guest
    }
    try:
        rlimits.lower(core=0)
        inside = None
        if policy is None or policy.view != "off":
            inside = _enter_empty(required=policy is not None and policy.view == "required")
        lockdown = Lockdown.of(
            "off" if off else "best-effort",
            read_only=trees[True],
            read_write=trees[False],
            calls=calls,
            inside=inside,
            rules=None if off else allowed(calls, None),
            keep=() if view.claimed() else privileges.OF_FILES,
            # Before this version renaming from one directory to another cannot be granted.
            oldest=_LANDLOCK_RENAMES,
        )
    except LockdownError as error:
        raise PolicyError(str(error)) from error
    return Confinement({}, 0, lockdown)


def _enter_empty(*, required: bool) -> View | None:
    from capabilities.lockdown import LockdownError, view

    view.claim()
    try:
        return view.enter(())
    except view.Unavailable as error:
        if required:
            raise LockdownError([f'view = "required" cannot be met: {error}']) from error
        return None
