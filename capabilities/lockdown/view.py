"""The view: a root directory of a thread's own, in which only what was granted exists.

It is a mount namespace (mount_namespaces(7)) with an empty file system as its root, into which the
granted files and folders are bound; then nothing of the host's tree is mounted in it any more. So
the kernel does what would otherwise be a check of every path: what is not granted has no name.

An ordinary user may do that in a user namespace (user_namespaces(7)), which `claim` makes, and
which has to be made while the process has one thread. It all goes with the process: nothing is
mounted anywhere else, and no file is made but in the memory of that root.

It serves the start of most guests, so it imports nothing that takes time.
"""

from __future__ import annotations

import os
from errno import ENOSPC, ENOSYS, EROFS
from stat import S_ISDIR, S_ISLNK
from struct import pack

from capabilities._errors import LockdownError
from capabilities.links import open_plain

from . import privileges
from ._kernel import call, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_UNSHARE, _PIVOT_ROOT, _UMOUNT2 = number(272, 97), number(155, 41), number(166, 39)
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_FROM_EMPTY_PATH, _TO_EMPTY_PATH = 0x4, 0x40
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_SET_STRING, _CREATE = 1, 6
_MNT_DETACH = 2
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_PRIVATE = 1 << 18

_SIZE = b"4m"  # more than all environments and mount points that one could want
_ENVIRONMENTS = ".environment"


class Unavailable(Exception):
    """No namespace can be had here; the text says what refused it, and why."""


class Bind:
    """What shall be seen, and where.

    Attributes:
        host: a path of the host's, to a file, a folder with all that is mounted in it, a device or
            a socket; an absolute one in which no link may be.
        guest: the absolute, normalised path at which it is seen. /dev/ptmx at /dev/pts stands for
            pseudo-terminals of the view's own.
        writable: whether it can be changed. Devices, FIFOs and sockets are, by nature: those that
            lie in a folder that is not writable can still be written to.
        executable: whether files in it can be executed.
    """

    __slots__ = ("executable", "guest", "host", "writable")

    def __init__(
        self, host: str, guest: str, *, writable: bool = False, executable: bool = False
    ) -> None:
        self.host, self.guest = host, guest
        self.writable, self.executable = writable, executable


_claim: str | None = None  # "" once a user namespace was made, or why it was not


def claim() -> None:
    """Make a view possible for an ordinary user: in a user namespace, with the same user in it.

    To be called before the process has a second thread. Where it cannot be had, `enter` will say
    so; who has the privilege anyway needs none. Other users' files show another owner in it.

    Raises:
        LockdownError: the process is in a namespace where it is nobody: it should end.
    """
    global _claim  # noqa: PLW0603 - the namespace is the process's, once and for all
    if _claim is not None or privileges.holds(privileges.SYS_ADMIN):
        return
    # Read before: afterwards the user is nobody until he is mapped.
    ids = f"{os.geteuid()} {os.geteuid()} 1", f"{os.getegid()} {os.getegid()} 1"
    if not os.access("/proc/self/uid_map", os.W_OK):
        _claim = "the process cannot write to /proc/self/uid_map, which a user namespace takes"
        return
    try:
        call(_UNSHARE, _CLONE_NEWUSER)
    except OSError as error:
        _claim = f"the kernel gives this user no namespace (unshare: {error.strerror})"
        return
    for name, line in (("setgroups", "deny"), ("uid_map", ids[0]), ("gid_map", ids[1])):
        try:
            fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, line.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise LockdownError(
                [f"the user namespace cannot be set up: {name}: {error.strerror}"]
            ) from error
    privileges.unbound()
    _claim = ""


def claimed() -> bool:
    """Return whether `claim` has made a user namespace, with every capability in it."""
    return _claim == ""


class View:
    """The view that this thread is in, made by `enter`.

    Attributes:
        shown: the folder that holds what is granted, unless that is the whole tree of the host's:
            there is nothing in it that is not.
        environments: the folder of what `place_environment` makes; None where none was asked for,
            or where the whole tree has no place for it.
    """

    __slots__ = ("_first", "_writable", "environments", "shown")

    def __init__(self, shown: tuple[str, ...], first: bytes | None, writable: int) -> None:
        self.shown, self._first, self._writable = shown, first, writable
        wanted = first is not None or writable >= 0
        self.environments = f"/{_ENVIRONMENTS}" if wanted else None

    @property
    def rewritable(self) -> bool:
        """Whether `place_environment` can make more than the first."""
        return self._writable >= 0

    def place_environment(self, data: bytes) -> str:
        """Make the file of an environment in the view, where nobody else can make one.

        It is one for each process, and takes the place of an earlier one of the same process. That
        of `enter` is there already.

        Returns:
            Its path.

        Raises:
            OSError: it cannot be made; EROFS where the view is not `rewritable`.
        """
        if data == self._first:
            self._first = None
            return environment_path()
        if self._writable < 0:
            raise OSError(EROFS, os.strerror(EROFS))
        return _write_environment(self._writable, data)

    def close(self) -> None:
        """Let go of what `place_environment` needs. The thread stays where it is."""
        if self._writable >= 0:
            os.close(self._writable)
            self._writable = -1


def enter(
    binds: Iterable[Bind],
    *,
    cwd: str = "/",
    environment: bytes | None = None,
    rewritable: bool = False,
) -> View:
    """Move this thread, and those that it starts from now on, into a view of these things.

    Other threads stay where they are. Descriptors that are open stay open, and lead to what they
    led to before: open what has to stay reachable before, and close what must not be.

    Args:
        binds: all that there will be. One may lie in another, where that has a place for it.
        cwd: the working directory, as the view has it.
        environment: what the file of an environment shall hold, where there shall be one.
        rewritable: whether `View.place_environment` shall make more of them, for other programs.

    Raises:
        Unavailable: no namespace can be had. The thread sees what it saw before.
        LockdownError: something cannot be shown, be it that it does not exist; it lists everything
            that is wrong. The thread is fit for nothing but to say so.
    """
    wanted = sorted(binds, key=lambda bind: (bind.guest.count("/"), bind.guest != "/"))
    whole = wanted[0] if wanted and wanted[0].guest == "/" else None
    try:
        _own_namespace()
        root = _open(whole) if whole else _file_system(b"tmpfs", size=_SIZE, mode=b"755")
    except OSError as error:
        if whole is None or error.errno == ENOSYS:
            raise Unavailable(_reason(error)) from error
        raise LockdownError([_refusal(whole, error)]) from error
    try:
        try:
            call(_MOVE_MOUNT, root, b"", _AT_FDCWD, b"/", _FROM_EMPTY_PATH)
        except OSError as error:
            raise Unavailable(_reason(error)) from error
        writable = -1 if whole else _environments(root, environment, rewritable=rewritable)
        if whole:
            _furnish(root, wanted[1:], own=None)
        else:
            _furnish(root, wanted, own=os.fstat(root).st_dev)
        _move_in(root, whole)
    finally:
        os.close(root)
    try:
        os.chdir(cwd)
    except OSError as error:
        raise LockdownError([f"{cwd} cannot be the working directory: {error.strerror}"]) from error
    return View((), None, -1) if whole else View(("/",), environment, writable)


def environment_path() -> str:
    """Return where the environment of this process is found in its view."""
    return f"/{_ENVIRONMENTS}/{os.getpid()}"


def probe() -> str:
    """Say why this process could not `enter` a view, from a copy of it that tries; empty if it can.

    Raises:
        OSError: there is no copy to be had.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = "the attempt failed"
        try:
            claim()
            enter([])
            said = ""
        except Unavailable as error:
            said = str(error)
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


def _own_namespace() -> None:
    """A copy of the host's mounts, from which nothing goes back: not even to be unmounted."""
    if _claim:
        raise Unavailable(_claim)
    call(_UNSHARE, _CLONE_NEWNS)
    _set_attributes(_AT_FDCWD, b"/", _AT_RECURSIVE, 0, propagation=_PRIVATE)


def _file_system(kind: bytes, **options: bytes) -> int:
    """A new one, mounted nowhere yet: a descriptor of it."""
    context = call(_FSOPEN, kind, _FSOPEN_CLOEXEC)
    try:
        for name, value in options.items():
            call(_FSCONFIG, context, _SET_STRING, name.encode(), value, 0)
        call(_FSCONFIG, context, _CREATE, None, None, 0)
        return call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def _environments(root: int, first: bytes | None, *, rewritable: bool) -> int:
    """Make their folder; a second mount of the root, which stays writable, or -1."""
    if first is None and not rewritable:
        return -1
    os.mkdir(_ENVIRONMENTS, 0o700, dir_fd=root)
    # The folder alone, and nothing to be executed: procfs leads whoever has it to this descriptor.
    folder = call(_OPEN_TREE, root, _ENVIRONMENTS.encode(), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    _set_attributes(folder, b"", _AT_EMPTY_PATH, _NO_SUID | _NO_DEVICES | _NO_EXEC)
    if first is not None:
        _write_environment(folder, first)
    if rewritable:
        return folder
    os.close(folder)
    return -1


def _write_environment(folder: int, data: bytes) -> str:
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
    fd = os.open(str(os.getpid()), flags, 0o600, dir_fd=folder)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
    finally:
        os.close(fd)
    return environment_path()


def _furnish(root: int, binds: Iterable[Bind], own: int | None) -> None:
    """Show them beneath the root. `own` is the device of a root of our own, where all is made."""
    refused = []
    for bind in binds:
        try:
            _show(root, bind, own)
        except OSError as error:
            refused.append(_refusal(bind, error))
    if refused:
        raise LockdownError(refused)


def _show(root: int, bind: Bind, own: int | None) -> None:
    if bind.guest.split("/")[1] == _ENVIRONMENTS:
        raise OSError(None, "environments lie there: it takes another name")
    tree = _open(bind)
    try:
        place = _place(root, bind, own, folder=S_ISDIR(os.fstat(tree).st_mode))
        try:
            call(_MOVE_MOUNT, tree, b"", place, b"", _FROM_EMPTY_PATH | _TO_EMPTY_PATH)
        finally:
            os.close(place)
    finally:
        os.close(tree)
    # A /dev that is granted has its own, which the kernel leads to the terminals beside it.
    if _is_terminals(bind) and os.stat("dev", dir_fd=root).st_dev == own:
        os.symlink("pts/ptmx", "dev/ptmx", dir_fd=root)


def _is_terminals(bind: Bind) -> bool:
    """Are these pseudo-terminals? They are new ones, of the view's own, and not the host's."""
    return (bind.host, bind.guest) == ("/dev/ptmx", "/dev/pts")


def _open(bind: Bind) -> int:
    """A copy of what is mounted at a path, with no more rights than are granted."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE | _AT_EMPTY_PATH
    if _is_terminals(bind):
        tree = _file_system(b"devpts", ptmxmode=b"666", mode=b"600")
    else:
        # Opened in this namespace: of what was opened before, the kernel makes no copy here.
        found = open_plain(bind.host, os.O_PATH)
        try:
            tree = call(_OPEN_TREE, found, b"", flags)
        finally:
            os.close(found)
    try:
        # Only ever added to what the mount has: it keeps its own.
        attributes = _NO_SUID | (not bind.writable and _READ_ONLY)
        attributes |= not bind.executable and _NO_EXEC
        _set_attributes(tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _place(root: int, bind: Bind, own: int | None, *, folder: bool) -> int:
    """Where a thing goes: a descriptor of a place that is there, or is made in our own root.

    A link is never followed: it may have been left by a guest, in a folder that it could write.
    """
    *parents, name = bind.guest[1:].split("/")
    at = os.dup(root)
    try:
        for parent in parents:
            at = _step(at, own, parent, folder=True)
        return _step(at, own, name, folder=folder)
    except BaseException:
        os.close(at)
        raise


def _step(at: int, own: int | None, name: str, *, folder: bool) -> int:
    """A descriptor of `name` in `at`, which is closed."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=at)
    except FileNotFoundError:
        # Of our own making are the folders of our own root alone.
        if os.fstat(at).st_dev != own:
            raise OSError(None, f"what is granted around it has no {name!r}") from None
        if folder:
            os.mkdir(name, 0o755, dir_fd=at)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444, dir_fd=at))
        fd = os.open(name, flags, dir_fd=at)
    mode = os.fstat(fd).st_mode
    if S_ISLNK(mode) or S_ISDIR(mode) != folder:
        os.close(fd)
        kind = "link" if S_ISLNK(mode) else "folder" if S_ISDIR(mode) else "file"
        raise OSError(None, f"{name!r} in what is granted around it is a {kind}")
    os.close(at)
    return fd


def _move_in(root: int, whole: Bind | None) -> None:
    """Make it the root, and let go of the host's (pivot_root(2) explains the two dots)."""
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.fchdir(root)
        try:
            call(_PIVOT_ROOT, b".", b".")
        except OSError as error:  # as in the first file system of a machine, or in a chroot
            call(_UMOUNT2, b".", _MNT_DETACH)
            os.fchdir(before)
            raise Unavailable(_reason(error)) from error
    finally:
        os.close(before)
    call(_UMOUNT2, b".", _MNT_DETACH)
    if whole is None:
        attributes = _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC
        _set_attributes(root, b"", _AT_EMPTY_PATH, attributes)


def _set_attributes(
    fd: int, path: bytes, flags: int, attributes: int, *, propagation: int = 0
) -> None:
    what = pack("=QQQQ", attributes, 0, propagation, 0)  # struct mount_attr
    call(_MOUNT_SETATTR, fd, path, flags, what, len(what))


def _reason(error: OSError) -> str:
    if error.errno == ENOSYS:
        return "the kernel lacks mount_setattr or its kin: that takes Linux 5.12"
    return f"the kernel gives this process no namespace: {error.strerror}"


def _refusal(bind: Bind, error: OSError) -> str:
    shown = bind.host if bind.host == bind.guest else f"{bind.host} as {bind.guest}"
    return f"{shown} cannot be granted: {error.strerror}"
