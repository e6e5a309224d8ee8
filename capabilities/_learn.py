"""The least policy under which a run would have passed, made of what was written down of it.

What a call that failed asked for is not granted, where it fails the same without. A guest that only
looked at a directory which leads to something granted needs no more than that.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

import attrs

from ._calls import ESSENTIAL
from ._files import PTMX, PTS, Filesystem, Grant, ancestors, relative_to
from ._metadata import METADATA_WRITERS
from ._model import Environment, Network, Syscalls
from ._policy import Policy
from ._requests import Request, is_wasi
from ._values import has_wildcard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ._audit import Event

# A connection may come about later; and who is told that nobody listens was let through to hear it.
_LET_THROUGH = frozenset(
    (
        "0",
        "",
        "EINPROGRESS",
        "EADDRINUSE",
        "ECONNREFUSED",
        "EHOSTUNREACH",
        "ENETUNREACH",
        "ETIMEDOUT",
    )
)
_IS_THERE = frozenset(("EEXIST", "EISDIR", "ENOTEMPTY"))  # said of what a guest has to see for that
_MAKE_SOCKETS = frozenset(("socket", "socketpair"))
_ITS_OWN = "/proc/self/fd"  # what a program finds there are its own descriptors
_PROC = "/proc"
_MAGIC = frozenset(("cwd", "exe", "root"))  # links there that lead to another file for each process
_READ_LINKS = frozenset(("readlink", "readlinkat", "path_readlink"))


@attrs.frozen
class Learned:
    """What a run came to.

    Attributes:
        policy: the least policy that grants what the run needed.
        remarks: what the run needed and no policy can grant, a line each.
    """

    policy: Policy
    remarks: tuple[str, ...]


def learn(
    events: Iterable[Event],
    *,
    environment: Environment,
    catalogue: Mapping[str, str] | None = None,
) -> Learned:
    """Make the least policy that grants all that succeeded.

    Args:
        events: what was written down of a run in which nothing was refused.
        environment: the variables that the guest had.
        catalogue: every system call that there is, with its group; None for a WASI guest.
    """
    found = _Findings()
    for event in events:
        found.add(event)
    syscalls = Syscalls()
    if catalogue is not None:
        syscalls = Syscalls(allow=sorted((found.calls & catalogue.keys()) - ESSENTIAL))
    policy = Policy(
        filesystem=found.filesystem(),
        environment=environment,
        network=found.network(),
        syscalls=syscalls,
    )
    found.remark_on_metadata(policy.filesystem)
    return Learned(policy, tuple(dict.fromkeys(found.remarks)))


class _Findings:
    """What the events of a run come to."""

    def __init__(self) -> None:
        self.trees: set[Grant] = set()
        self.led_to: dict[Grant, str] = {}  # by places with links in them, what is there
        self.looked_at: set[Grant] = set()
        self.devices: set[str] = set()
        self.ways: set[tuple[str, Grant]] = set()  # paths of WASI's, and the trees they need
        self.executed: set[tuple[int, Grant]] = set()  # by which process
        self.followed: set[Grant] = set()
        self.sockets: set[str] = set()  # kinds of those that were made
        self.unix: set[Grant] = set()
        self.connect: set[int] = set()
        self.listen: set[int] = set()
        self.calls: set[str] = set()
        self.remarks: list[str] = []
        self._started_in: str | None = None
        self._says_where = False

    def add(self, event: Event) -> None:
        if event.decision == "started":
            self._started_in = event.host
            return
        self._says_where |= event.syscall == "getcwd" or event.relative
        self.calls.add(event.syscall)
        if event.syscall.startswith("call "):  # by its number: nobody serves it
            self.remarks.append(f"no policy grants {event.syscall} of a native program's")
        if event.access == "execute":
            self._add_program(event)
            return
        if event.result == "EINVAL" and event.syscall in _READ_LINKS:  # it is there, and no link
            event = attrs.evolve(event, result="0")
        elif (
            event.result == "0" and (event.link or event.syscall in _READ_LINKS) and event.resource
        ):
            self._add_link(event)
            return
        if event.result in _IS_THERE:
            # WASI's calls find this out after they have looked whether they may change anything.
            access = event.access if is_wasi(event.syscall) else "look"
            event = attrs.evolve(event, access=access, result="0")
        if event.result not in _LET_THROUGH or not event.resource:
            return
        if not event.resource.startswith("/"):
            self._add_socket(event)
        elif relative_to(event.resource, _ITS_OWN) is None:
            self._add_file(event)

    def _add_file(self, event: Event) -> None:
        if _goes_elsewhere(event.resource):
            self.remarks.append(f"no policy grants {event.syscall} of {event.resource}")
            return
        place, wasi = _place(event), is_wasi(event.syscall)
        if not wasi and (place.guest == PTMX or relative_to(place.guest, PTS) is not None):
            self.devices.add(posixpath.basename(PTMX))
        elif event.access == "look" and event.directory and not wasi:
            self.looked_at.add(place)
        else:
            self.trees.add(place)
            self._remember_links(place, event)
        if wasi:
            self.ways.add((event.via or event.resource, place))
        elif event.via is not None:
            self.looked_at.update(Grant(path, path) for path in _on_the_way(event.via))

    def _remember_links(self, place: Grant, event: Event) -> None:
        """What a tree leads to is granted in its place: unless a link to it is to be seen."""
        if event.real is not None and not is_wasi(event.syscall):
            real = _parent(event.real) if event.access == "make" else event.real
            if real != place.host:
                self.led_to[place] = real

    def _add_link(self, event: Event) -> None:
        """A link is seen as one where the directory is granted that it lies in."""
        if relative_to(event.resource, _ITS_OWN) is not None:
            return
        folder = _parent(event.resource)
        if folder in ("/", _PROC):  # too much for a link
            self.remarks.append(
                f"{event.syscall} finds the link {event.resource} only where {folder} is granted, "
                "which is not in here"
            )
        elif is_wasi(event.syscall):
            self._add_file(attrs.evolve(event, directory=False))
        else:
            real = None if event.real is None else _parent(event.real)
            host = _parent(event.host or event.resource)
            self._add_file(
                attrs.evolve(
                    event, resource=folder, host=host, real=real, access="read", directory=True
                )
            )

    def _add_program(self, event: Event) -> None:
        executed = event.pid, _place(event)
        if event.result in _LET_THROUGH or event.result == "ENOEXEC":  # it found it
            if relative_to(event.resource, _PROC) is not None:
                self.remarks.append(f"no policy grants {event.syscall} of {event.resource}")
                return
            self.executed.add(executed)
            # Who becomes another program cannot say so any more: somebody else has.
            self.followed |= {executed[1]} if event.result == "0" or event.module else set()
        else:
            self.executed.discard(executed)

    def _add_socket(self, event: Event) -> None:
        if event.syscall in _MAKE_SOCKETS:
            of_streams = event.syscall == "socketpair" and event.resource == "unix"
            self.sockets |= set() if of_streams else {event.resource.partition("-")[0]}
            return
        try:
            request = Request.parse(f"{event.syscall} {event.resource}")
        except ValueError:  # an abstract name, or another protocol than TCP
            request = Request(event.syscall)
        if request.use == "connect" and request.socket is not None:
            self.unix.add(Grant(request.socket, request.socket))
        elif not request.port:
            self.remarks.append(f"no policy grants {event.syscall} of {event.resource}")
        elif request.use == "connect":
            self.connect.add(request.port)
        else:
            self.listen.add(request.port)

    def network(self) -> Network:
        """Return the addresses that were named; remark on sockets that need others."""
        network = Network(sorted(self.connect), sorted(self.listen), tuple(sorted(self.unix)))
        for kind in sorted(self.sockets):
            if kind == "tcp" and not (network.connect or network.listen):
                self._remark_on_sockets("sockets of TCP", "port", "connect or network.listen")
            elif kind == "unix" and not network.unix:
                self._remark_on_sockets("unix sockets", "path", "unix")
            elif kind not in ("tcp", "unix"):
                name = "another kind" if kind == "other" else kind.upper()
                self.remarks.append(f"no policy grants a socket of {name}")
        if "listen" in self.calls and not network.listen:
            self._remark_on_sockets("listen", "port", "listen")
        return network

    def _remark_on_sockets(self, what: str, name: str, key: str) -> None:
        are = "is" if what == "listen" else "are"
        self.remarks.append(
            f"{what} {are} granted only with a {name} in network.{key}, and this run named none"
        )

    def remark_on_metadata(self, files: Filesystem) -> None:
        """In procfs are links to what is not granted, so that with it no metadata is changed."""
        changing = sorted(self.calls & METADATA_WRITERS)
        reached = [
            grant.host
            for grant in files.readable
            if grant.host == "/" or relative_to(grant.host, _PROC) is not None
        ]
        if changing and reached:
            self.remarks.append(
                f"no policy grants {', '.join(changing)} together with anything in {_PROC}, "
                f"of which this run needed {', '.join(reached)}"
            )

    def filesystem(self) -> Filesystem:
        cwd = self._started_in if self._says_where else None
        if cwd is not None:
            self.looked_at.add(Grant(cwd, cwd))
        programs = {grant for _, grant in self.executed}
        self.remarks += (
            f"what {grant.host} needs besides, if it is one of Linux's own programs, is not in here"
            for grant in sorted(programs - self.followed)
        )
        granted = [grant.guest for grant in (*self.trees, *programs, *self.unix)]
        granted += [_parent(grant.guest) for grant in self.looked_at]
        leading = {"/", *(outer for path in granted for outer in ancestors(path))}
        looked_at = (grant for grant in self.looked_at if grant.guest not in leading)
        shown = {self._as_is_shown(tree) for tree in self.trees}
        trees = _widened(shown, self.ways) - programs  # those can be read, too
        return Filesystem.of(
            _without_narrowing({*trees, *looked_at}),
            exec=sorted(programs),
            devices=self.devices,
            cwd=cwd,
        )

    def _as_is_shown(self, tree: Grant) -> Grant:
        """In a tree that is granted links are links: what they lead to has its own name then."""
        real = self.led_to.get(tree)
        around = (other.guest for other in self.trees if other.guest != tree.guest)
        if real is None or has_wildcard(real) or set(around).isdisjoint(ancestors(tree.guest)):
            return tree
        return Grant(real, real, tree.read_write)


def _widened(trees: set[Grant], ways: set[tuple[str, Grant]]) -> set[Grant]:
    """Do without trees in which paths begin that lead out of them.

    A WASI program's libc goes to the innermost tree whose name a path begins with, and from there
    it has to get to its end.
    """
    found = True
    while found:
        found = False
        for path, place in ways:
            around = [tree for tree in trees if tree.guest in ancestors(path)]
            inside = [tree for tree in around if relative_to(place.guest, tree.guest) is None]
            for tree in inside:
                trees = trees - {tree}
                trees |= {attrs.evolve(place, read_write=place.read_write or tree.read_write)}
                found = True
    return trees


def _on_the_way(path: str) -> Iterator[str]:
    """List the directories that a path goes through and leaves again."""
    at: list[str] = []
    for part in path.split("/"):
        if part == "..":
            yield "/" + "/".join(at)
            at = at[:-1]
        elif part not in ("", "."):
            at.append(part)


def _place(event: Event) -> Grant:
    """Return the tree that has to be granted for an event."""
    host, guest = event.host or event.resource, event.resource
    changes = event.access in ("write", "make")
    wasi = is_wasi(event.syscall)
    # WASI programs are given directories alone. Who makes or removes a name changes a directory.
    if (wasi and not event.directory) or event.access == "make":
        host, guest = _parent(host), _parent(guest)
    real = event.real if event.real is None or event.directory else _parent(event.real)
    begins = next(_on_the_way(event.via), guest) if wasi and event.via is not None else guest
    # A link may not lead out of a tree, and where a path begins has to be in it, too.
    while wasi and "/" not in (host, guest):
        if (real is None or relative_to(real, host) is not None) and guest in ancestors(begins):
            break
        host, guest = _parent(host), _parent(guest)
    while has_wildcard(host + guest):  # no policy's file can name it
        host, guest = _parent(host), _parent(guest)
    return Grant(host, guest, read_write=changes)


def _goes_elsewhere(path: str) -> bool:
    """Does it go through one of procfs' links, which lead out of every view?"""
    below = relative_to(path, _PROC)
    return below is not None and not _MAGIC.isdisjoint(below.split("/"))


def _parent(path: str) -> str:
    return posixpath.dirname(path)


def _without_narrowing(grants: set[Grant]) -> Iterator[Grant]:
    """What lies in a tree that is changed, under whatever name, is as good as changed."""
    changed = {grant.host for grant in grants if grant.read_write}
    for grant in grants:
        inside = not changed.isdisjoint(ancestors(grant.host))
        yield attrs.evolve(grant, read_write=True) if inside else grant
