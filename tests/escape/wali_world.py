"""What a WALI program that wants to get out is let into, and who holds it there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests import ordinary
from tests.wali import building

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = "SECRET of nobody's business"
GROUPS = (
    *("@basic-io", "@chown", "@default", "@file-system", "@io-event", "@ipc", "@mount"),
    *("@network-io", "@process", "@resources", "@setuid", "@signal", "@sync", "@timer"),
)


@dataclass(frozen=True)
class Layers:
    """Who holds the program; ``gate`` is what the core decides: calls, sockets, streams."""

    view: bool
    kernel: bool
    """Landlock and seccomp."""

    gate: bool

    def policy(self, world: WaliWorld) -> str:
        """A policy under which every call is granted, and next to nothing to make them on."""
        return f"""
            version = 1
            view = "{"required" if self.view else "off"}"
            lockdown = "{"required" if self.kernel else "off"}"
            [filesystem]
            read_write = ["{world.inside}"]
            read_only = ["{world.shelf}"]
            [network]
            connect = ["tcp://*:1"]
            [syscalls]
            allow = {json.dumps(GROUPS)}
        """


LAYERS = {
    "all": Layers(view=True, kernel=True, gate=True),
    "without a view": Layers(view=False, kernel=True, gate=True),
    "without Landlock and seccomp": Layers(view=True, kernel=False, gate=True),
    "view alone": Layers(view=True, kernel=False, gate=False),
    "kernel alone": Layers(view=False, kernel=True, gate=False),
    "gate alone": Layers(view=False, kernel=False, gate=True),
    "view and kernel": Layers(view=True, kernel=True, gate=False),
}

# The command, with or without what the core itself decides.
COMMAND = """
import sys
from wali_core import _confine, cli
if sys.argv.pop(1) == "no gate":
    confine = _confine.confine
    def ungated(*arguments, **options):
        made = confine(*arguments, **options)
        made.gate.clear()
        made.network = _confine.NETWORK_ANY
        return made
    _confine.confine = ungated
    _confine.keep_streams = lambda *_: {}
sys.exit(cli.main(sys.argv[1:]))
"""


class WaliWorld:
    """Folders with what is granted and what is not, and servers outside."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.outside, self.inside, self.shelf = top / "outside", top / "inside", top / "shelf"
        for folder in (self.outside, self.inside, self.shelf, top / "insider"):
            folder.mkdir()
        (self.outside / "empty").mkdir()
        (self.outside / "link").symlink_to("secret")
        for path in (self.outside / "secret", top / "insider" / "secret"):
            path.write_text(CONTENT)
        (self.outside / "victim").write_text("victim")
        (self.shelf / "book").write_text("book")
        (self.inside / "own").write_text("own")
        for name, target in {
            "relative": "../outside/secret",
            "absolute": str(self.outside / "secret"),
            "first": "second",
            "second": "third",
            "third": "../outside/secret",
            "folder": "../outside",
            "dangling": "../outside/new",
            "socket": "../outside/socket",
        }.items():
            (self.inside / name).symlink_to(target)
        self.program = top / "escape.wasm"
        shutil.copy(building.program("escape"), self.program)
        self._sockets = [*self._servers()]
        self.port: int = self._sockets[0].getsockname()[1]
        self._before = self.seen()

    def _servers(self) -> Iterator[socket.socket]:
        yield socket.create_server(("127.0.0.1", 0))
        for kind, name in (
            (socket.SOCK_STREAM, str(self.outside / "socket")),
            (socket.SOCK_DGRAM, str(self.outside / "datagrams")),
            (socket.SOCK_STREAM, "\0wali-escape-test"),
        ):
            made = socket.socket(socket.AF_UNIX, kind)
            made.bind(name)
            if kind == socket.SOCK_STREAM:
                made.listen(100)
            if name.startswith("/"):
                os.chmod(name, 0o666)  # noqa: S103 - whoever the program runs as
            yield made

    def close(self) -> None:
        """Close the servers."""
        for made in self._sockets:
            made.close()

    def seen(self) -> dict[str, object]:
        """What is outside and on the shelf: names, contents, metadata but for times of reading."""
        found: dict[str, object] = {}
        for folder in (self.outside, self.shelf, self.top / "insider"):
            for path in (folder, *sorted(folder.rglob("*"))):
                about = path.lstat()
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                found[str(path)] = (
                    *(about.st_mode, about.st_uid, about.st_gid, about.st_nlink, about.st_size),
                    *(about.st_mtime_ns, about.st_ctime_ns, content),
                )
        return found

    def hand_over(self) -> None:
        """Make everything the ordinary user's, as whom the program will run."""
        ordinary.give(self.top)
        self._before = self.seen()

    @property
    def changed(self) -> bool:
        """Has anything that was not granted to be changed?"""
        return self.seen() != self._before

    def attack(
        self, layers: Layers, who: str, *more: str, policy: str | None = None
    ) -> dict[str, int]:
        """Have the program try everything; what came of it."""
        (self.top / "policy.toml").write_text(layers.policy(self) if policy is None else policy)
        gate = "gate" if layers.gate else "no gate"
        command = [sys.executable, "-c", COMMAND, gate, "run", "--policy"]
        command += [str(self.top / "policy.toml"), str(self.program), str(self.outside)]
        # The parent is a process of the same user.
        with subprocess.Popen(ordinary.command(["/bin/sleep", "600"])) as parent:
            command += [str(self.inside), str(self.shelf), str(self.port), str(parent.pid), *more]
            try:
                done = self._run(command, who)
            finally:
                parent.kill()
        assert (done.returncode, done.stderr) == (0, "")
        lines = (line.rpartition(": ") for line in done.stdout.splitlines())
        return {what: int(result) for what, _, result in lines}

    def _run(self, command: list[str], who: str) -> subprocess.CompletedProcess[str]:
        with (self.outside / "victim").open("rb") as stdin:
            if who == "user":
                return ordinary.run(command, self.top, cwd=self.inside, stdin=stdin)
            return subprocess.run(
                command,
                env=os.environ | {"PYTHONPATH": str(ordinary.ROOT), "HOME": str(self.top)},
                cwd=self.inside,
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
