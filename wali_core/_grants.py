"""What a guest is given: directories, environment, limits; from the caller's words and a policy."""

from __future__ import annotations

import os
from functools import cache

from wali_core._errors import PolicyError, UseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Final, TypeAlias, TypeVar

    from capabilities import Policy
    from capabilities.links import Place
    from wali_core._sockets import Socket

    _Number = TypeVar("_Number", int, float)
    Where: TypeAlias = Callable[["Preopen"], str]
    Dirs = Mapping[str, str | os.PathLike[str] | tuple[str | os.PathLike[str], str]]

PROCFS_REACHED, PROCFS_TOLD, PROCFS_ABSENT, PROCFS_ELSEWHERE = 0, 1, 2, 4
_ENDLESS: Final = 1e9
"""Seconds, 30 years: what is longer, ``math.inf`` as well, is no limit; no clock need count it."""


def guest_path(name: str) -> str:
    """A directory's name for a guest as an absolute path: wasi-libc takes ``.`` for ``/``."""
    path = os.path.normpath(name)
    return f"/{path.lstrip('/')}" if path != "." else "/"


class Preopen:
    """A directory of the host under a name of the guest's; for a WALI program also a file.

    ``key`` is that of the policy which grants it, ``source`` its name; empty for the caller's.  So
    it is ``named`` where it is refused.  ``starts`` is for ``.`` as a part of another directory,
    ``within``: the path that this has in there.  Of a ``pinned`` one links were followed when the
    policy was made, and none may be there now.
    """

    __slots__ = (
        *("_place", "guest", "host", "key", "named", "pinned", "read_only", "starts", "within"),
    )

    def __init__(
        self,
        guest: str,
        host: str,
        *,
        read_only: bool,
        key: str = "",
        source: str = "",
        starts: str | None = None,
        within: Preopen | None = None,
        pinned: bool = False,
    ) -> None:
        self.guest, self.host, self.read_only = guest, host, read_only
        self.key, self.named = key, f"{source}: {key}:" if key else f"directory {guest!r}:"
        self.starts, self.within, self.pinned = starts, within, pinned
        self._place: Place | None = None

    @property
    def path(self) -> str:
        """The guest's absolute path of what is in it."""
        return self.starts or guest_path(self.guest)

    @property
    def full(self) -> str:
        """The host's absolute path as it was said."""
        # Before ".." there may be a link: only the kernel's way says where that leads.
        return self.place if ".." in self.host.split("/") else os.path.abspath(self.host)

    @property
    def found(self) -> Place:
        """Where it is, which was looked at once: nothing else is opened."""
        if self._place is None:
            self.settle()
            assert self._place is not None
        return self._place

    @property
    def place(self) -> str:
        return self.found.path

    def settle(self) -> None:
        """Look where it is now, in this process."""
        from capabilities.links import follow

        try:
            self._place = follow(self.host)
        except (OSError, ValueError) as error:
            raise PolicyError(self.unopened(error)) from None

    def reached_as(self, guest: str) -> Preopen:
        """The same under another name of the guest's."""
        other = Preopen(guest, self.host, read_only=self.read_only, pinned=self.pinned)
        other.key, other.named = self.key, self.named
        other._place = self._place
        return other

    def open(self) -> tuple[int, bool]:
        """A descriptor of the directory, and whether a procfs is mounted beneath it.

        Raises ``PolicyError`` where it cannot be had, or is procfs itself: ``/proc/self/mem`` there
        is the memory of the engine.
        """
        from capabilities.links import open_plain

        refuse_missing([self])
        if self.within is not None and not beneath(self.place, self.within.place):
            raise PolicyError(
                f"filesystem.cwd: {self.starts!r} leads to {self.place} on the host, out of "
                f"{self.within.host}, in which it was to lie"
            )
        try:
            try:
                fd = open_plain(self.place, os.O_DIRECTORY | os.O_RDONLY)
            except PermissionError:  # it can be walked through, if not listed
                fd = open_plain(self.place, os.O_DIRECTORY | os.O_PATH)
        except (OSError, ValueError) as error:
            raise PolicyError(self.unopened(error)) from None
        try:
            return fd, self._reaches_proc(fd)
        except BaseException:
            os.close(fd)
            raise

    def unopened(self, reason: str | OSError | ValueError) -> str:
        """Why it cannot be had."""
        words = reason.strerror if isinstance(reason, OSError) else reason
        return f"{self.named} cannot open {self.host} on the host: {words}"

    def _reaches_proc(self, fd: int) -> bool:
        mounts = _proc_mounts()
        if mounts is None:
            return True  # unknown: let the core look at everything that is opened
        path = os.readlink(f"/proc/self/fd/{fd}")
        if any(beneath(path, mount) for mount in mounts):
            raise PolicyError(
                f"{self.named} {self.host} lies on procfs, which is never granted: it holds the "
                "engine's own memory"
            )
        return any(beneath(mount, path) for mount in mounts)


def _can_be_opened(entry: os.DirEntry[str]) -> bool:
    mounts = _proc_mounts() or ()
    # Not entry.is_dir(), which raises for a link that leads where this user may not look.
    return entry.path not in mounts and os.path.isdir(entry.path) and os.access(entry.path, os.X_OK)


def procfs_of(*, absent: bool) -> int:
    """What the core is to do about /proc/PID/mem, which no program may open (``files.c``).

    It has a quick way to tell that from other files, if the kernel is as we know it: of what is
    regular, only memory lets itself be positioned at an address as high as -1 is.  The answer is
    that address, which libc takes for EPERM.
    """
    if absent:
        return PROCFS_ABSENT
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return PROCFS_REACHED
    try:
        os.lseek(memory, -1, os.SEEK_SET)
    except PermissionError:
        return PROCFS_TOLD
    except OSError:
        pass
    finally:
        os.close(memory)
    return PROCFS_REACHED


def reaches_proc(path: str) -> bool:
    """Does a path lead to a procfs, or is one mounted beneath?  If that cannot be known, it is."""
    from capabilities.links import real

    mounts, path = _proc_mounts(), real(path)
    return mounts is None or any(beneath(path, m) or beneath(m, path) for m in mounts)


def beneath(path: str, folder: str) -> bool:
    """Is a path in a folder, or that folder?  Both are absolute and normalised."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _proc_mounts() -> list[str] | None:
    """Where procfs is mounted, or None where that cannot be known (proc(5), mountinfo)."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return None
    found = []
    for line in lines:
        before, _, after = line.partition(b" - ")
        if after.startswith(b"proc "):
            found.append(os.fsdecode(_unescape(before.split(b" ")[4])))
    return found


def _unescape(field: bytes) -> bytes:
    """Undo what mountinfo does to white space and backslashes: three octal digits each."""
    parts = field.split(b"\\")
    return parts[0] + b"".join(bytes([int(p[:3], 8)]) + p[3:] for p in parts[1:])


def refuse_moved(granted: Sequence[Preopen], writable: Iterable[Preopen]) -> None:
    """Raise ``PolicyError`` where something leads elsewhere by a link that a guest may have left.

    That may be in what a combined policy grants, which was compared with the other policy as it was
    without; and in what the guest may change, however a path comes there.
    """
    refuse([*_nested(granted), *_moved(granted, [*writable])])


def refuse_missing(granted: Iterable[Preopen]) -> None:
    """Raise ``PolicyError`` with all that is not there, or cannot be looked at."""
    refuse([one.unopened(one.found.error) for one in granted if one.found.error])


def refuse(problems: Sequence[str]) -> None:
    """Raise ``PolicyError`` with all of them, if there are any."""
    if problems:
        raise PolicyError("\n".join(problems))


def _moved(granted: Iterable[Preopen], writable: Sequence[Preopen]) -> Iterator[str]:
    for one in granted:
        led_out = [
            tree.host
            for link in one.found.links
            for tree in writable
            if beneath(link, tree.place) and not beneath(one.place, tree.place)
        ]
        if one.pinned and one.place != one.host:
            why = 'and no link may be followed (links = "refused", as in all combined policies)'
        elif led_out:
            why = f"out of {led_out[0]}, which the guest may change"
        else:
            continue
        yield f"{one.named} {one.host} cannot be granted: it leads to {one.place}, {why}"


def _denied(policy: Policy, granted: Iterable[Preopen]) -> Iterator[str]:
    """What lies in, or around, what the policy denies."""
    if not policy.filesystem.inaccessible:
        return
    from capabilities.links import real

    resolve = cache(real)
    for one in granted:
        denied = policy.filesystem.denial((one.full, one.place), resolve)
        if denied is not None:
            yield (
                f"{one.named} {one.full} cannot be granted: {policy.source} makes {denied} "
                "inaccessible, of which it is a part, or the other way round"
            )


def _nested(preopens: Iterable[Preopen]) -> Iterator[str]:
    """A read-only directory in a writable one.

    It would not be read-only: the other one leads to the same files, whatever its name.  (Of one
    directory with two names that can be seen, so it is let be.)
    """
    preopens = [*preopens]
    around = [outer for outer in preopens if not outer.read_only]
    for inner in preopens:
        for outer in around if inner.read_only else ():
            if inner.place != outer.place and beneath(inner.place, outer.place):
                yield (
                    f"{inner.named} {inner.host} cannot be granted read-only: it lies in "
                    f"{outer.host}, and as {outer.guest!r} the guest may write there"
                )
                break


_ROOTS: Final = frozenset(("/", "."))


class Grants:
    """Everything that a guest gets, resolved."""

    def __init__(self) -> None:
        self.preopens: dict[str, Preopen] = {}
        self.added: list[Preopen] = []
        """Those of the preopens that the caller granted, on top of the policy."""
        self.exec: list[Preopen] = []
        """What a policy lets WALI programs execute."""
        self.unix: list[Preopen] = []
        """The unix sockets that it lets them connect to."""
        self.audit_place: Place | None = None
        """Where an audit is written."""
        self._settled = 0
        self.env: dict[str, str] = {}
        self.sockets: tuple[Socket, ...] = ()
        self.strict_rights = False
        self.clock: tuple[str, int] | None = None
        """Where a WASI guest's time comes from, and when it begins; None is the host's."""
        self.seed: int | None = None
        """What a WASI guest's random bytes follow from; None is the kernel's."""
        """What a WASI guest does not ask for when it opens something, it does not get."""
        self.wall_time: float | None = None
        self.memory: int | None = None
        self.cpu_time: float | None = None
        self.open_files: int | None = None
        self.output: int | None = None
        self.processes: int | None = None
        self.threads: int | None = None
        self.metered: tuple[int, ...] = (1, 2)
        """Which of its streams are counted towards ``output``, since nobody else counts them."""
        self.whole_run = False
        """Do limits of time bound all calls together, and not each of them?"""
        self.deadline: float | None = None
        """When a whole run must be over (monotonic), where ``wall_time`` is not of each call."""

    def add_policy(self, policy: Policy) -> None:
        for key, grant in policy.keyed_grants().items():
            one = Preopen(
                *(grant.guest, grant.host),
                read_only=not grant.read_write,
                key=key,
                source=policy.source,
                pinned=grant.pinned,
            )
            if key.startswith("filesystem.read_"):
                self.preopens[grant.guest] = one
            else:
                (self.unix if key.startswith("network") else self.exec).append(one)
        for name in policy.environment.inherit:
            if name in os.environ:
                self.env[name] = os.environ[name]
        self.env.update(policy.environment.set)
        self.wall_time = policy.limits.wall_time
        limits = policy.limits
        self.memory, self.output = limits.memory, limits.output
        self.cpu_time = _least(limits.cpu_time, None if limits.cpu_time is None else _ENDLESS)
        self.open_files = limits.open_files
        self.processes, self.threads = limits.processes, limits.threads
        if policy.clock.source != "host":
            self.clock = policy.clock.source, policy.clock.start
        self.seed = policy.random.seed

    def for_shim(self) -> dict[str, Any]:
        """What a shim is told besides its guest's arguments, environment and directories."""
        told: dict[str, Any] = {"strict": self.strict_rights}
        if self.clock is not None:
            told["clock"] = self.clock
        if self.seed is not None:
            told["seed"] = self.seed
        return told

    def add_dirs(self, dirs: Dirs) -> None:
        """``{guest: host}`` or ``{guest: (host, "ro" | "rw")}``; read-only if nothing is said."""
        if not hasattr(dirs, "items"):
            raise TypeError(f"dirs: {dirs!r}: it must be a mapping, {{guest: host}}")
        for guest, value in dirs.items():
            host, mode = value if isinstance(value, tuple) else (value, "ro")
            if mode not in ("ro", "rw"):
                raise PolicyError(f"dirs: {guest!r}: the mode is {mode!r}, it must be 'ro' or 'rw'")
            self._add(os.fsdecode(guest), os.fsdecode(host), read_only=mode == "ro")

    def _add(self, guest: str, host: str, *, read_only: bool) -> None:
        if not guest or "\0" in guest:
            raise PolicyError(f"directory name {guest!r}: it must not be empty, nor hold a NUL")
        for path in (guest, host):
            _encoded(path, "directory")
        self.preopens[guest] = Preopen(guest, host, read_only=read_only)
        self.added.append(self.preopens[guest])

    def add_env(self, env: Mapping[str, str]) -> None:
        for name, value in env.items():
            if not all(isinstance(word, str) for word in (name, value)):
                raise TypeError(f"environment variable {name!r}: {value!r}: both must be str")
            if not name or "=" in name or "\0" in name or "\0" in value:
                raise PolicyError(
                    f"environment variable {name!r}: a name has no '=', and neither has a NUL"
                )
            _encoded(name + value, f"environment variable {name!r}:")
            self.env[name] = value

    def narrow(self, wall_time: float | None, memory: int | None) -> None:
        """Limits of the caller's, where they are tighter than the policy's."""
        if memory is not None and memory < 0:
            raise PolicyError(f"memory: {memory} is negative")
        if wall_time is not None and not wall_time < _ENDLESS:
            if not wall_time >= _ENDLESS:  # NaN
                raise PolicyError(f"timeout: {wall_time} is no number of seconds")
            wall_time = None
        self.wall_time = _least(self.wall_time, wall_time)
        self.memory = _least(self.memory, memory)

    def settle(self, policy: Policy | None, *, everything: bool = False) -> None:
        """Look once at where all that is granted leads, and refuse what it must not lead to.

        What is opened later is what was looked at here.  Every process looks for itself, once:
        procfs has links that lead each elsewhere.  ``everything`` says that all is granted anyway.
        Raises ``PolicyError`` with all that is wrong.
        """
        if self._settled == os.getpid():
            return
        granted = [*self.preopens.values(), *self.exec, *self.unix]
        for one in granted:
            one.settle()
        problems = [] if policy is None else [*_denied(policy, granted)]
        if not everything:
            writable = [one for one in self.preopens.values() if not one.read_only]
            problems += [*_nested(self.preopens.values()), *_moved(granted, writable)]
            problems += self._audited(policy, writable)
        refuse(problems)
        self._settled = os.getpid()

    def _audited(self, policy: Policy | None, writable: Iterable[Preopen]) -> Iterator[str]:
        """An audit that the guest could change, or lead elsewhere by a link."""
        if policy is None or policy.audit.path is None or policy.audit.log == "none":
            return
        from capabilities.links import follow

        self.audit_place = follow(policy.audit.path)
        for tree in writable:
            for path in (self.audit_place.path, *self.audit_place.links):
                if beneath(path, tree.place):
                    yield (
                        f"{policy.source}: audit.path: {path} lies in {tree.host}, which the guest "
                        "may change: write it elsewhere"
                    )
                    break

    def for_programs(self, policy: Policy) -> tuple[list[Preopen], str | None]:
        """Where a WALI program finds the directories, and where it starts, if that is said.

        One that is given no other name has the host's whole path; a relative name is one in the
        root; ``.`` is the working directory.  The last one with a name has it.
        """
        places: dict[str, Preopen] = {}
        cwd = policy.filesystem.cwd
        for preopen in self.preopens.values():
            guest = preopen.guest
            if guest in (".", preopen.host):
                guest = preopen.full
                cwd = guest if preopen.guest == "." else cwd
            guest = os.path.normpath("/" + guest.lstrip("/"))
            places[guest] = preopen.reached_as(guest)
        return list(places.values()), cwd

    def in_all(self, policy: Policy, trees: Iterable[Preopen], where: Where) -> Policy:
        """The policy with all that a program is granted, the caller's directories among it.

        ``where`` says by which path of the host's: as it was said, or where that was found.
        """
        import attrs

        from capabilities import Grant

        def grants(preopens: Iterable[Preopen]) -> tuple[Grant, ...]:
            return tuple(Grant(where(one), one.path, not one.read_only) for one in preopens)

        trees = tuple(trees)
        files = attrs.evolve(
            policy.filesystem,
            read_only=grants(tree for tree in trees if tree.read_only),
            read_write=grants(tree for tree in trees if not tree.read_only),
            exec=grants(self.exec),
        )
        network = attrs.evolve(policy.network, unix=grants(self.unix))
        return attrs.evolve(policy, filesystem=files, network=network)

    def directories(self, policy: Policy | None) -> tuple[Preopen, ...]:
        """What a WASI program gets: the directories, and the one that relative paths start from.

        That is the policy's ``cwd``; without one, where it has a tree under the host's own name in
        which this process is, it is where this process is.  Raises ``PolicyError``.
        """
        given = tuple(self.preopens.values())
        if policy is None:
            return given
        cwd = policy.filesystem.cwd
        if cwd is None:
            place = None if _ROOTS.intersection(self.preopens) else self._here(policy)
        else:
            place = self._place_of(cwd)
        return given if place is None else (*given, place)

    def _here(self, policy: Policy) -> Preopen | None:
        here = os.getcwd()
        own = [grant for grant in policy.filesystem.grants if grant.host == grant.guest]
        around = [grant.host for grant in own if beneath(here, grant.host)]
        return self._beneath(max(around, key=len), here) if around else None

    def _place_of(self, cwd: str) -> Preopen | None:
        around = [guest for guest in self.preopens if beneath(cwd, guest)]
        if not around:
            raise PolicyError(f"filesystem.cwd: {cwd!r} lies in no directory that is granted")
        found = max(around, key=len)
        if found == cwd == "/":
            return None  # relative paths start there anyway
        if _ROOTS.intersection(self.preopens):
            raise PolicyError(
                f"filesystem.cwd: {cwd!r} cannot be had beside a grant of '/' or '.', which "
                "wasi-libc does not tell from the working directory"
            )
        return self._beneath(found, cwd)

    def _beneath(self, guest: str, path: str) -> Preopen:
        """A directory in one that is granted, as the one that relative paths start from."""
        outer = self.preopens[guest]
        host = os.path.normpath(f"{outer.host}/{path[len(guest) :]}")
        return Preopen(
            *(".", host),
            read_only=outer.read_only,
            starts=path,
            within=outer,
        )

    def to_meter(self, hosts: Sequence[int]) -> list[int]:
        """Of the host's descriptors of the standard streams, those to count what is written to."""
        return [hosts[number] for number in self.metered if hosts[number] >= 0]

    def count_from(self, started: float) -> None:
        """Let limits of time be those of the whole run, which has started then (monotonic)."""
        self.whole_run = True
        if self.wall_time is not None:
            self.deadline = started + self.wall_time

    @property
    def bound(self) -> tuple[float, float] | None:
        """When the whole run must be over, and how many seconds that is; None for no limit."""
        return None if self.deadline is None else (self.deadline, self.wall_time or 0.0)

    def add_everything(self) -> None:
        """``--allow-all``: the whole file system, the working directory, the whole environment.

        Not the root as one directory: to wasi-libc ``/`` and ``.`` are the same name, of which the
        last wins, so that either absolute or relative paths would go astray.  Each directory in the
        root has a name of its own instead; procfs among them is never granted.
        """
        self._add(".", ".", read_only=False)
        with os.scandir("/") as root:
            names = sorted(entry.path for entry in root if _can_be_opened(entry))
        for name in names:
            self._add(name, name, read_only=False)
        self.env = dict(os.environ)


def _least(first: _Number | None, second: _Number | None) -> _Number | None:
    return second if first is None else first if second is None else min(first, second)


def _encoded(word: str | bytes, what: str) -> bytes:
    if not isinstance(word, (str, bytes, os.PathLike)):
        raise TypeError(f"{what} {word!r}: it must be str or bytes, not {type(word).__name__}")
    try:
        return os.fsencode(word)
    except UnicodeEncodeError as error:
        raise PolicyError(f"{what} {word!r}: it cannot be bytes: {error.reason}") from error


def encoded(words: Iterable[str | bytes], what: str) -> list[bytes]:
    """Arguments as bytes.  Raises ``PolicyError`` for what no program can be given."""
    out = [_encoded(word, what) for word in words]
    for word in out:
        if b"\0" in word:
            raise PolicyError(f"{what} {word!r}: it holds a NUL")
    return out


def load_policy(policy: Policy | str | os.PathLike[str] | None) -> Policy | None:
    """A policy as it is, or the file's, or the profile's of that name.  Raises ``PolicyError``.

    The package is imported only where there is one.
    """
    if isinstance(policy, (str, os.PathLike)):
        import capabilities
        from wali_core._bridge import core

        try:
            named = capabilities.profile_named(policy) if isinstance(policy, str) else None
            policy = capabilities.Policy.load(named or policy, catalogue=core.catalogue())
        except capabilities.PolicyError as error:
            raise PolicyError(str(error)) from error
    if policy is not None and not hasattr(policy, "syscalls"):
        raise UseError(f"policy={policy!r}: it must be a Policy, or the path or name of one")
    if policy is not None and (problems := policy.unheld()):
        raise PolicyError("\n".join(map(str, problems)))
    return policy
