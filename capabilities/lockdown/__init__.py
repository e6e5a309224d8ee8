"""What the kernel holds a guest's thread to, whatever the code that serves its calls gets wrong.

First `view.enter` moves the thread to where nothing exists but what was granted. Then
`Lockdown.prepare` turns a policy into rules, while files can still be opened; `Lockdown.commit`
confines the calling thread, last of all: after imports and compilation, before the guest's code.
It opens nothing and imports nothing.

`Lockdown.explain` says who closes which door, and what is left open.
"""

# General layout:
#
#   view        a mount namespace in which only what was granted exists: of one thread
#   privileges  capabilities(7), given up; no_new_privs
#   landlock    files, TCP ports, abstract unix sockets and signals: of one thread
#   seccomp     the system calls that there are: of a whole process
#   rlimits     limits of a whole process, for one that runs nothing but a guest
#   _kernel     system calls that Python has no functions for
#
# What is imported here is imported at every start of a guest: no attrs, no typing.

from __future__ import annotations

from capabilities._errors import LockdownError
from capabilities._metadata import METADATA_WRITERS

from . import landlock, privileges, seccomp, view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Final, Literal, TypeAlias

    from capabilities import Grant, Policy

    from .seccomp import Filter
    from .view import View

    Mode: TypeAlias = Literal["required", "best-effort", "off"]

__all__ = ["METADATA_WRITERS", "Lockdown", "LockdownError", "view"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


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

_VIEW: Final = "what was not granted does not exist for it"
_FILTER: Final = "seccomp"
_ABSTRACT_NAMES: Final = "abstract names of unix sockets can be bound"

# What passes Landlock outside of the grants, the calls that do it, what the view, seccomp and the
# core have against it: the first that there is closes the door.
_PASSES: Final = (
    (
        "names and metadata of the host's files are readable (stat, access, readlink, O_PATH)",
        _METADATA_READERS,
        (_VIEW, "", ""),
    ),
    (
        "metadata of the host's files is writable (chmod, chown, utimensat, setxattr)",
        METADATA_WRITERS,
        (_VIEW, "", ""),
    ),
    (
        "metadata of the files at the standard streams is writable (fchmod, fchown, utimensat)",
        _names("fchmod fchown fchownat utimensat futimesat"),
        ("", "", "look at what a call names"),
    ),
    ("unix sockets can be connected to by their path", _SENDERS, (_VIEW, "", "")),
    (
        "MPTCP, TCP fast open, UDP, raw, packet and netlink sockets",
        _names("socket setsockopt sendto sendmsg sendmmsg"),
        ("", _FILTER, "closed list of socket types, options and flags"),
    ),
    (
        "any port is listened at without a bind",
        _names("listen"),
        ("", "", "look at whether a port to listen at is granted"),
    ),
    (
        _ABSTRACT_NAMES,
        _names("bind"),
        ("", _FILTER, "closed list of socket types"),
    ),
    (
        "memory of this process, where a grant reaches /proc (/proc/PID/mem)",
        _names("open openat openat2"),
        ("", "", "look at what was opened"),
    ),
    (
        "priority, affinity, limits and groups of other processes",
        _names("""
            setpriority getpriority sched_setaffinity sched_getaffinity sched_setscheduler
            sched_getscheduler sched_setparam sched_getparam sched_setattr sched_getattr ioprio_set
            ioprio_get prlimit64 setpgid getpgid getsid
        """),
        ("", "", "look at whom a call names"),
    ),
)


class Lockdown:
    """A policy as the kernel takes it, ready for the thread that will run the guest.

    Make one by `prepare`. It confines one thread, once.

    Attributes:
        mode: what the policy says: `"required"`, `"best-effort"` or `"off"`.
        missing: what the kernel cannot confine, of `landlock.FEATURES`; with `"required"` only what
            the policy does not need.
        filters: whether it will allow the system calls of some rules alone.
    """

    __slots__ = (
        *("_calls", "_filter", "_keep", "_ports", "_ruleset", "_trees", "_unix"),
        *("_view", "filters", "missing", "mode"),
    )

    def __init__(
        self,
        ruleset: landlock.Ruleset | None,
        mode: Mode,
        trees: tuple[Collection[str | int], ...],
        ports: tuple[Collection[int], Collection[int]],
        calls: Collection[str] | None,
        inside: View | None,
        rules: Filter | None,
        keep: Collection[int] | None,
    ) -> None:
        self._ruleset, self._trees, self._ports, self._calls = ruleset, trees, ports, calls
        self._view, self._filter, self._keep = inside, rules, keep
        self._unix = False
        self.filters = rules is not None
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
        inside: View | None = None,
        rules: Filter | None = None,
        keep: Collection[int] | None = None,
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
            inside: the view that this thread is in, where the policy's files have the names that
                the guest knows them by, and the paths above those that they have there.
            rules: a filter of the calls that the whole process may make; None for any.
            keep: the capabilities that the thread keeps of those that it has; None for all.

        Raises:
            LockdownError: the policy requires what the kernel cannot do, or a path cannot be
                granted; it lists everything that is wrong.
        """

        def paths(grants: Iterable[Grant]) -> list[str]:
            return [grant.guest if inside else grant.host for grant in grants]

        made = cls.of(
            policy.lockdown,
            read_only=[*paths(policy.filesystem.read_only), *read_only],
            read_write=[*paths(policy.filesystem.read_write), *read_write],
            exec_paths=exec_paths,
            connect_ports=[*policy.network.connect, *connect_ports],
            listen_ports=[*policy.network.listen, *listen_ports],
            calls=calls,
            inside=inside,
            rules=rules,
            keep=keep,
        )
        made._unix = inside is not None and bool(policy.network.unix)  # noqa: SLF001 - our own
        return made

    @classmethod
    def of(
        cls,
        mode: Mode,
        *,
        read_only: Iterable[str | int] = (),
        read_write: Iterable[str | int] = (),
        exec_paths: Iterable[str] = (),
        connect_ports: Iterable[int] = (),
        listen_ports: Iterable[int] = (),
        calls: Collection[str] | None = None,
        inside: View | None = None,
        rules: Filter | None = None,
        keep: Collection[int] | None = None,
        oldest: int = 1,
    ) -> Lockdown:
        """`prepare` without a policy: all that is granted is said, by paths or open descriptors.

        Versions of Landlock before the `oldest` are left alone.
        """
        trees = [*read_only], [*read_write], [*exec_paths]
        ports = [*connect_ports], [*listen_ports]
        if mode == "off":
            return cls(None, mode, trees, ports, calls, inside, None, keep)
        if rules is not None and not seccomp.available():
            if mode == "required":
                raise LockdownError([_NO_SECCOMP])
            rules = None
        ruleset = landlock.prepare(
            *trees[:2],
            *ports,
            exec_paths=trees[2],
            listed=inside.shown if inside else (),
            oldest=oldest,
            mode=mode,
            needed=[
                name
                for name in landlock.FEATURES
                if name not in _BACKSTOPS and _can(calls, _NEEDED_FOR.get(name))
            ],
        )
        return cls(ruleset, mode, trees, ports, calls, inside, rules, keep)

    def commit(self) -> None:
        """Confine the calling thread, for good, and whatever it starts from now on.

        Raises:
            LockdownError: the kernel refused. The thread may not be confined: run no guest on it.
        """
        if self._ruleset is None and self._view is None:
            return
        try:
            if self._keep is not None:
                privileges.drop(self._keep)
            privileges.no_new_privileges()
        except OSError as error:
            raise LockdownError([f"privileges cannot be given up: {error.strerror}"]) from error
        if self._ruleset is not None:
            self._ruleset.commit()
        if self._filter is not None:
            seccomp.install(self._filter.program)

    def close(self) -> None:
        """Give the rules up, if they were not committed. It may be called more than once."""
        if self._ruleset is not None:
            self._ruleset.close()

    def explain(self) -> list[str]:
        """Say in words what holds the guest, line by line, and what does not.

        Each line starts with who enforces it: `kernel`, `view`, `core` (what serves the calls),
        `gate` (no call that could do it is granted), or `open` for nobody.
        """
        return [*self._enforced(), *self._left()]

    def _enforced(self) -> Iterator[str]:
        if self._view is not None:
            yield f"view: {_VIEW}: it has a root directory of its own"
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
        if self._filter is not None:
            names = ", ".join(sorted(rule.name for rule in self._filter.rules))
            yield f"kernel: no system call is made but these (seccomp): {names}"

    def _left(self) -> Iterator[str]:
        if self._ruleset is not None:
            for feature in self.missing:
                yield self._line(
                    f"this kernel cannot confine {feature}",
                    _NEEDED_FOR.get(feature),
                    ("", "", _BACKSTOPS.get(feature, "")),
                )
        for passes, calls, closers in _PASSES:
            granted = self._unix and passes is _ABSTRACT_NAMES
            yield self._line(passes, calls, ("", "", "") if granted else closers)
        yield "open: descriptors that are open already keep the rights that they were opened with"

    def _line(self, what: str, calls: frozenset[str] | None, closers: tuple[str, str, str]) -> str:
        by_view, by_filter, by_core = closers
        if not _can(self._calls, calls):
            return f"gate: {what}: no call that does is granted"
        if by_view and self._view is not None:
            return f"view: {what}: {by_view}"
        if by_filter and self._filter is not None:
            return f"kernel: {what}: {by_filter}; and left to the core's {by_core}"
        return f"core: {what}: left to its {by_core}" if by_core else f"open: {what}"


_NO_SECCOMP: Final = (
    "this kernel has no seccomp filters, or refuses them: the policy has to say "
    'lockdown = "best-effort" to run without'
)


def _can(granted: Collection[str] | None, acts: frozenset[str] | None) -> bool:
    """Return whether a guest can make one of some calls; None is any call, for both."""
    return granted is None or acts is None or not acts.isdisjoint(granted)
