"""What a policy says to one request: granted or not, and by which of its rules.

Pure: no file is looked at, and nothing is enforced. A path is decided on as it is written; the
kernel decides by the same trees on what is left when links are resolved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from . import _calls
from ._files import PTMX, PTS, ancestors, join, relative_to
from ._metadata import METADATA_WRITERS
from ._requests import KINDS, MAKES_SOCKETS, is_wasi

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._files import Grant
    from ._model import Parts
    from ._requests import Request, Use

DEFAULT = "default"


@attrs.frozen
class Decision:
    """What a policy says to a request. It is true if the request is granted.

    Attributes:
        granted: whether the request is granted.
        rule: the key of the policy that decides, such as `filesystem.read_only[0]`; `default` where
            nothing grants it, `always` for what no policy withholds. An index counts the entries as
            the policy shows them.
        reason: why, for people.
    """

    granted: bool
    rule: str
    reason: str

    def __bool__(self) -> bool:
        return self.granted

    def __str__(self) -> str:
        return f"{'granted' if self.granted else 'refused'} by {self.rule}: {self.reason}"


def decide(parts: Parts, request: Request, catalogue: Mapping[str, str] | None = None) -> Decision:
    """Decide on one request.

    Args:
        parts: the policy.
        request: what a guest asks for.
        catalogue: every call that there is, with its group. Without it, and for WASI's calls, the
            call itself is taken for granted, and what it names is decided on.

    Raises:
        PolicyError: an entry of `[syscalls]` is neither a call nor a group of the catalogue.
    """
    if request.variable is not None:
        return _decide_variable(parts, request.variable)
    gate = _decide_call(parts, request.call, catalogue)
    if not gate:
        return gate
    decide_path = _decide_wasi_path if is_wasi(request.call) else _decide_path
    for path in request.paths:
        decision = decide_path(parts, path, request)
        if not decision or path == request.paths[-1]:
            return decision
    if request.socket is not None:
        return _decide_socket(parts, request.socket, request.use)
    if request.port is not None:
        return _decide_port(parts, request.port, request.use)
    if request.call in MAKES_SOCKETS:
        return _decide_kind(parts, request.call, request.kind, gate)
    if request.call == "listen" and not parts.network.listen:
        return Decision(False, DEFAULT, "network.listen grants no port")
    return gate


def _decide_call(parts: Parts, call: str, catalogue: Mapping[str, str] | None) -> Decision:
    if catalogue is None or is_wasi(call):
        return Decision(True, "always", "WASI programs are not held by calls")
    ruling = _calls.rulings(parts, catalogue).get(call)
    return Decision(*ruling or (False, DEFAULT, f"{call!r} is not served"))


def _decide_variable(parts: Parts, name: str) -> Decision:
    if name in parts.environment.set:
        return Decision(True, f"environment.set.{name}", f"it is {parts.environment.set[name]!r}")
    if name in parts.environment.inherit:
        return Decision(True, "environment.inherit", f"{name!r} is in it")
    return Decision(False, DEFAULT, f"{name!r} is neither inherited nor set")


def _decide_port(parts: Parts, port: int, use: Use | None) -> Decision:
    key = f"network.{use}"
    if port in (parts.network.connect if use == "connect" else parts.network.listen):
        return Decision(True, key, f"port {port} is in it")
    return Decision(False, DEFAULT, f"port {port} is not in {key}")


def _decide_kind(parts: Parts, call: str, kind: str | None, gate: Decision) -> Decision:
    granted = {kind: key for kind in KINDS if (key := _kind_key(parts, call, kind)) is not None}
    if kind is None and granted:
        return attrs.evolve(gate, reason=f"{gate.reason}: {', '.join(granted)}")
    if kind in granted:
        return Decision(True, granted[kind] or gate.rule, f"it grants {kind}")
    said = f" of kind {kind}" if kind else ""
    return Decision(False, DEFAULT, f"[network] grants no {call}{said}")


def _kind_key(parts: Parts, call: str, kind: str) -> str | None:
    """Return the key that grants a kind of socket; empty where the call itself is enough."""
    network = parts.network
    if kind == "unix" and call == "socketpair":
        return ""  # it is connected already
    if kind.startswith("unix"):
        return "network.unix" if network.unix else None
    if kind != "tcp" or call == "socketpair":
        return None
    if network.connect:
        return "network.connect"
    return "network.listen" if network.listen else None


def _decide_socket(parts: Parts, path: str, use: Use | None) -> Decision:
    found = _innermost(path, _keyed("network.unix", parts.network.unix))
    if use == "connect" and found is not None:
        return Decision(True, found[0], f"{path!r} is {_named(found[1])}")
    return Decision(False, DEFAULT, f"{path!r} is no socket of network.unix to connect to")


# --- files ----------------------------------------------------------------------------------------


def _decide_wasi_path(parts: Parts, path: str, request: Request) -> Decision:
    """Decide as wasi-libc names files: what lies in no tree, it looks for where it starts."""
    cwd, trees = parts.filesystem.cwd, {grant.guest for grant in parts.filesystem.grants}
    if cwd is None or not trees.isdisjoint(ancestors(path)) or trees.isdisjoint(ancestors(cwd)):
        return _decide_path(parts, path, request, wasi=True)
    decision = _decide_path(parts, join(cwd, path[1:]), request, wasi=True)
    reason = f"{path!r} is looked for in filesystem.cwd: {decision.reason}"
    return attrs.evolve(decision, reason=reason)


def _decide_path(parts: Parts, path: str, request: Request, *, wasi: bool = False) -> Decision:
    files, access = parts.filesystem, request.access
    trees = _keyed("filesystem.read_only", files.read_only)
    trees += _keyed("filesystem.read_write", files.read_write)
    # WASI programs are given directories alone, and execute nothing.
    programs = [] if wasi else _keyed("filesystem.exec", files.exec)
    devices = [] if wasi else _keyed("filesystem.devices", files.named_devices)
    # There it is a link to the device that makes a terminal.
    devices += [
        (key, attrs.evolve(grant, guest=PTMX)) for key, grant in devices if grant.guest == PTS
    ]
    # What makes or removes a name changes the directory that the name is in.
    place = path.rpartition("/")[0] or "/" if access == "make" else path
    found = _innermost(place, programs + trees + devices)
    if found is None and access == "look" and not wasi:
        sockets = _keyed("network.unix", parts.network.unix)
        for key, grant in (*trees, *programs, *devices, *sockets):
            if relative_to(grant.guest, place) is not None:
                return Decision(True, key, f"{place!r} leads to {_named(grant)}")
    if found is None:
        return Decision(False, DEFAULT, f"{place!r} lies in nothing that is granted{_for(access)}")
    host = _host_of(place, found[1])
    for index, denied in enumerate(files.inaccessible):
        if host is not None and relative_to(host, denied) is not None:
            key = f"filesystem.inaccessible[{index}]"
            return Decision(False, key, f"{host!r} lies in {denied!r}")
    # It is what the innermost shows there; others that show the same may grant more of it.
    able = programs if access == "execute" else programs + trees + devices
    if access in ("write", "make"):
        able = [item for item in trees if item[1].read_write]
        # What is written to a device goes through; what it is itself, stays.
        able += devices if request.call not in METADATA_WRITERS else []
    best = _innermost(place, (item for item in able if _host_of(place, item[1]) == host))
    if best is not None:
        return Decision(True, best[0], f"{place!r} lies in {_named(best[1])}")
    if access == "execute":
        return Decision(False, DEFAULT, f"{place!r} lies in nothing that is granted{_for(access)}")
    why = "which is itself not changed" if found in devices else "to read only"
    return Decision(False, found[0], f"{place!r} lies in {_named(found[1])}, {why}")


def _host_of(place: str, grant: Grant) -> str | None:
    """Return what a grant shows at a path of the guest's, if anything."""
    below = relative_to(place, grant.guest)
    return None if below is None else join(grant.host, below)


def _for(access: str) -> str:
    return " to be executed" if access == "execute" else ""


def _named(grant: Grant) -> str:
    return repr(grant.guest) + ("" if grant.guest == grant.host else f" ({grant.host!r} outside)")


def _keyed(key: str, grants: Iterable[Grant]) -> list[tuple[str, Grant]]:
    return [(f"{key}[{index}]", grant) for index, grant in enumerate(grants)]


def _innermost(path: str, grants: Iterable[tuple[str, Grant]]) -> tuple[str, Grant] | None:
    """Return the grant whose tree, as the guest sees it, lies closest around a path."""
    by_guest = {grant.guest: (key, grant) for key, grant in grants}
    return next((by_guest[outer] for outer in ancestors(path) if outer in by_guest), None)
