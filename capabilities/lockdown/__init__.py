"""What the kernel holds a guest's thread to, whatever the code that serves its calls gets wrong.

`Lockdown.prepare` turns a policy into rules while files can still be opened; `Lockdown.commit`
confines the calling thread, last of all: after imports and compilation, before the guest's code.
It opens nothing and imports nothing.

So far that is `no_new_privs` and Landlock. `Lockdown.explain` says what they leave open.
"""

# General layout:
#
#   landlock  files, TCP ports, abstract unix sockets and signals: of one thread
#   rlimits   limits of the whole process, for one that runs nothing but a guest
#
# What is imported here is imported at every start of a guest: no attrs, no typing.

from __future__ import annotations

from capabilities._errors import LockdownError

from . import landlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Final, Literal, TypeAlias

    from capabilities import Policy

    Mode: TypeAlias = Literal["required", "best-effort", "off"]

__all__ = ["METADATA_WRITERS", "Lockdown", "LockdownError"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


METADATA_WRITERS: Final = _names("""
    chmod fchmod fchmodat fchmodat2 chown fchown fchownat lchown utime utimes futimesat utimensat
    setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
""")
"""Calls that change what the host says about a file. Landlock does not hold them to the grants."""

_METADATA_READERS: Final = _names("""
    stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat statfs chdir open
    openat openat2 getxattr lgetxattr getxattrat listxattr llistxattr listxattrat
""")
_SIGNALLERS: Final = _names("kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal")
_SENDERS: Final = _names("connect sendto sendmsg sendmmsg")

# The calls that need one of Landlock's features to be confined; one that is not listed is needed
# whatever is granted.
_NEEDED_FOR: Final = {
    "TCP ports": _names("bind connect listen"),
    "ioctls of devices": _names("ioctl"),
    "abstract unix sockets": _SENDERS,
    "signals": _SIGNALLERS,
}
# Features that are not needed, since the core closes the same by itself.
_BACKSTOPS: Final = {"ioctls of devices": "closed list of ioctls"}

# What passes Landlock outside of the grants, the calls that do it, what the core has against it.
_PASSES: Final = (
    (
        "names and metadata of the host's files are readable (stat, access, readlink, O_PATH)",
        _METADATA_READERS,
        "",
    ),
    (
        "metadata of the host's files is writable (chmod, chown, utimensat, setxattr)",
        METADATA_WRITERS,
        "",
    ),
    ("unix sockets can be connected to by their path", _SENDERS, ""),
    (
        "MPTCP, TCP fast open, listen without bind, UDP, raw, packet and netlink sockets",
        _names("socket listen setsockopt sendto sendmsg sendmmsg"),
        "closed list of socket types, options and flags",
    ),
    (
        "abstract names of unix sockets can be bound",
        _names("bind"),
        "own look at the address",
    ),
    (
        "memory of this process, where a grant reaches /proc (/proc/PID/mem)",
        _names("open openat openat2"),
        "look at what was opened",
    ),
    (
        "priority, affinity, limits and groups of other processes",
        _names("""
            setpriority getpriority sched_setaffinity sched_getaffinity sched_setscheduler
            sched_getscheduler sched_setparam sched_getparam sched_setattr sched_getattr ioprio_set
            ioprio_get prlimit64 setpgid getpgid getsid
        """),
        "look at whom a call names",
    ),
)


class Lockdown:
    """A policy as the kernel takes it, ready for the thread that will run the guest.

    Make one by `prepare`. It confines one thread, once.

    Attributes:
        mode: what the policy says: `"required"`, `"best-effort"` or `"off"`.
        missing: what the kernel cannot confine, of `landlock.FEATURES`; with `"required"` only what
            the policy does not need.
    """

    __slots__ = ("_calls", "_ports", "_ruleset", "_trees", "missing", "mode")

    def __init__(
        self,
        ruleset: landlock.Ruleset | None,
        mode: Mode,
        trees: tuple[Collection[str], Collection[str], Collection[str]],
        ports: tuple[Collection[int], Collection[int]],
        calls: Collection[str] | None,
    ) -> None:
        self._ruleset, self._trees, self._ports, self._calls = ruleset, trees, ports, calls
        self.mode: Mode = mode
        self.missing = ruleset.missing if ruleset else tuple(landlock.FEATURES)

    @classmethod
    def prepare(
        cls,
        policy: Policy,
        *,
        read_only: Iterable[str] = (),
        read_write: Iterable[str] = (),
        exec_paths: Iterable[str] = (),
        connect_ports: Iterable[int] = (),
        listen_ports: Iterable[int] = (),
        calls: Collection[str] | None = None,
    ) -> Lockdown:
        """Open what is granted and have the kernel accept the rules. Nobody is confined yet.

        Args:
            policy: what is granted, and how much the kernel has to do about the rest.
            read_only: host paths to grant besides: files, and directories with all in them.
            read_write: the same, to read and change.
            exec_paths: the same, to read and execute.
            connect_ports: TCP ports to connect to, besides.
            listen_ports: TCP ports to listen at, besides.
            calls: the system calls that the guest can make at all. A kernel that cannot confine a
                call that nobody can make does; None is any call.

        Raises:
            LockdownError: the policy requires what the kernel cannot do, or a path cannot be
                granted; it lists everything that is wrong.
        """
        trees = (
            [*(grant.host for grant in policy.filesystem.read_only), *read_only],
            [*(grant.host for grant in policy.filesystem.read_write), *read_write],
            [*exec_paths],
        )
        ports = (
            [*policy.network.connect, *connect_ports],
            [*policy.network.listen, *listen_ports],
        )
        ruleset = None
        if policy.lockdown != "off":
            ruleset = landlock.prepare(
                *trees[:2],
                *ports,
                exec_paths=trees[2],
                mode=policy.lockdown,
                needed=[
                    name
                    for name in landlock.FEATURES
                    if name not in _BACKSTOPS and _can(calls, _NEEDED_FOR.get(name))
                ],
            )
        return cls(ruleset, policy.lockdown, trees, ports, calls)

    def commit(self) -> None:
        """Confine the calling thread, for good, and whatever it starts from now on.

        Raises:
            LockdownError: the kernel refused. The thread may not be confined: run no guest on it.
        """
        if self._ruleset is not None:
            self._ruleset.commit()

    def close(self) -> None:
        """Give the rules up, if they were not committed. It may be called more than once."""
        if self._ruleset is not None:
            self._ruleset.close()

    def explain(self) -> list[str]:
        """Say in words what holds the guest, line by line, and what does not.

        Each line starts with who enforces it: `kernel`, `core` (what serves the calls), `gate` (no
        call that could do it is granted), or `open` for nobody.
        """
        return [*self._enforced(), *self._left()]

    def _enforced(self) -> Iterator[str]:
        if self._ruleset is None:
            yield 'open: the policy says lockdown = "off": the kernel confines nothing'
            return
        yield "kernel: no program that is executed gains privileges (no_new_privs)"
        if "files" not in self.missing:
            kinds = zip(("read", "read and write", "read and execute"), self._trees, strict=True)
            granted = [f"{path} ({kind})" for kind, paths in kinds for path in paths]
            yield (
                "kernel: files are opened, executed, made, removed, renamed and linked below these "
                f"alone: {', '.join(granted) or 'none'}"
            )
        if "TCP ports" not in self.missing:
            for act, ports in zip(("connects to", "binds to"), self._ports, strict=True):
                allowed = ", ".join(map(str, sorted(set(ports)))) or "none"
                yield f"kernel: TCP {act} these ports alone, at any address: {allowed}"
        for feature, line in (
            ("truncation", "files are truncated where they can be written alone"),
            ("ioctls of devices", "devices opened from now on answer ioctls where writable alone"),
            ("abstract unix sockets", "no abstract unix socket from outside can be connected to"),
            ("signals", "no process outside can be sent a signal"),
        ):
            if feature not in self.missing:
                yield f"kernel: {line}"

    def _left(self) -> Iterator[str]:
        if self._ruleset is not None:
            for feature in self.missing:
                yield self._line(
                    f"this kernel cannot confine {feature}",
                    _NEEDED_FOR.get(feature),
                    _BACKSTOPS.get(feature, ""),
                )
        for passes, calls, closer in _PASSES:
            yield self._line(passes, calls, closer)
        yield "open: descriptors that are open already keep the rights that they were opened with"

    def _line(self, what: str, calls: frozenset[str] | None, closer: str) -> str:
        if not _can(self._calls, calls):
            return f"gate: {what}: no call that does is granted"
        return f"core: {what}: left to its {closer}" if closer else f"open: {what}"


def _can(granted: Collection[str] | None, acts: frozenset[str] | None) -> bool:
    """Return whether a guest can make one of some calls; None is any call, for both."""
    return granted is None or acts is None or not acts.isdisjoint(granted)
