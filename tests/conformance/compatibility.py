"""The differences from wasmtime's WASI that are meant: the rows of docs/compatibility.md.

A rule looks at one call and at what both sides answered. Where it is about exactly that, it brings
the two worlds back together, as a program would that knows of the difference (it writes the rest,
say), and returns the answers to compare instead. Whatever still differs is looked at by the other
rules, and is a bug if none knows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.conformance.twins import (
    TRAP,
    UNTOUCHED,
    Answer,
    Call,
    Filestat,
    Subscription,
    Twins,
)
from tests.wasi_shim.calls import (
    APPEND,
    CREAT,
    DIRECTORY,
    DSYNC,
    READ,
    REGULAR_FILE,
    RSYNC,
    SYMBOLIC_LINK,
    SYNC,
    TRUNC,
    WRITE,
    Errno,
    Right,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[Answer, Answer]
    Resolve = Callable[[Twins, Call, Answer, Answer], Pair | None]
    Align = Callable[[Twins, Call, Answer], bool]


class Rule(NamedTuple):
    """One difference: what each side does, why it stays, and the calls that show it."""

    name: str
    here: str
    there: str
    why: str
    replay: tuple[Call, ...]


RULES: list[Rule] = []
_RESOLVED: dict[str, Resolve] = {}
_ALIGNED: dict[str, Align] = {}
SETTLED = Answer(-2), Answer(-2)
"""Nothing is left to compare: both sides are as they were, or were made the same."""

_ALL = (1 << 30) - 1
_FBIG, _ILSEQ, _INTR = 22, 25, 27
_SYNC = DSYNC | RSYNC | SYNC


def _rule(name: str, **columns: Any) -> Callable[[Resolve], Resolve]:
    """Document a difference in what is answered."""

    def add(resolve: Resolve) -> Resolve:
        RULES.append(Rule(name, **columns))
        _RESOLVED[name] = resolve
        return resolve

    return add


def _aligned(name: str, **columns: Any) -> Callable[[Align], Align]:
    """Document a difference that shows only later, and is undone at once."""

    def add(align: Align) -> Align:
        RULES.append(Rule(name, **columns))
        _ALIGNED[name] = align
        return align

    return add


def _open(
    path: bytes, oflags: int = 0, base: int = READ | WRITE, fdflags: int = 0, fd: int = 3
) -> Call:
    return Call("path_open", (fd, 1, path, oflags, int(base), 0, fdflags))


class Outcome(NamedTuple):
    """What both sides answered in the end, and the rules that it took to have them agree."""

    agreed: bool
    ours: Answer
    theirs: Answer
    applied: list[str]


def settle(twins: Twins, call: Call) -> Outcome:
    """Make a call on both sides."""
    ours, theirs = twins.call(call)
    applied: list[str] = []
    while not agree(twins, call, ours, theirs):
        for name, resolve in _RESOLVED.items():
            resolved = None if name in applied else resolve(twins, call, ours, theirs)
            if resolved is not None:
                ours, theirs = resolved
                applied.append(name)
                break
        else:
            return Outcome(False, ours, theirs, applied)
    if ours.errno == theirs.errno == 0:
        ours, theirs = twins.follow(call, ours, theirs)
        applied += [name for name, align in _ALIGNED.items() if align(twins, call, ours)]
    return Outcome(True, ours, theirs, applied)


def agree(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> bool:
    """Did both sides say the same?"""
    if ours.errno or theirs.errno:
        return ours == theirs
    mine, other = ours.outputs[:1], theirs.outputs[:1]
    if call.name in {"fd_filestat_get", "path_filestat_get"}:
        inodes = twins.same_files([mine[0].ino], [other[0].ino])
        return inodes and mine[0][1:] == other[0][1:]
    if call.name == "fd_readdir":
        return mine[0].used == other[0].used and twins.same_listings(call.args[0])
    return call.name == "path_open" or ours == theirs


# --- the ABI's own limits -------------------------------------------------------------------------

_VALID = {
    ("clock_res_get", 0): range(4),
    ("clock_time_get", 0): range(4),
    ("fd_advise", 3): range(6),
    ("fd_fdstat_set_flags", 1): range(32),
    ("fd_fdstat_set_rights", 1): range(1 << 30),
    ("fd_fdstat_set_rights", 2): range(1 << 30),
    ("fd_filestat_set_times", 3): range(16),
    ("fd_seek", 2): range(3),
    ("path_filestat_get", 1): range(2),
    ("path_filestat_set_times", 1): range(2),
    ("path_filestat_set_times", 5): range(16),
    ("path_link", 1): range(2),
    ("path_open", 1): range(2),
    ("path_open", 3): range(16),
    ("path_open", 4): range(1 << 30),
    ("path_open", 5): range(1 << 30),
    ("path_open", 6): range(32),
    ("sock_accept", 1): range(32),
    ("sock_recv", 2): range(4),
    ("sock_shutdown", 1): range(4),
}


def _is_valid(call: Call) -> bool:
    if call.name == "poll_oneoff":
        return all(one.of in range(4) for one in call.args[0] if one.tag == 0)
    return all(
        call.args[index] in valid for (name, index), valid in _VALID.items() if name == call.name
    )


def _masked(opening: Call) -> Call:
    """Without rights that have no meaning."""
    return opening.replaced(4, opening.args[4] & _ALL).replaced(5, opening.args[5] & _ALL)


@_rule(
    "numbers that the ABI does not have",
    here="an errno; rights without a meaning are ignored by `path_open`",
    there="the program is ended by a trap",
    why="a program can handle an error, and a newer libc may try what an engine does not know",
    replay=(Call("fd_seek", (3, 0, 7)),),
)
def _invalid_values(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if theirs.errno != TRAP or _is_valid(call):
        return None
    if call.name == "path_open":
        masked = _masked(call)
        if masked != call and _is_valid(masked):
            return ours, twins.on_theirs(masked)
    return SETTLED if ours.errno else None


# --- rights and access ----------------------------------------------------------------------------


@_rule(
    "rights that are reported",
    here="those that make sense for the type of file and were not dropped",
    there="all for what `path_open` opened, one fixed set for preopens, one for streams",
    why="`wasi-libc` tells terminals from files by FD_SEEK and FD_TELL; promised is what works",
    replay=(_open(b"a"), Call("fd_fdstat_get", (4,))),
)
def _reported_rights(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "fd_fdstat_get" or ours.errno or theirs.errno:
        return None
    mine, other = ours.outputs[0], theirs.outputs[0]
    if mine.base == other.base and mine.inheriting == other.inheriting:
        return None
    if mine.type == REGULAR_FILE and (mine.base ^ other.base) & (READ | WRITE):
        opening = twins.openings.get(call.args[0])
        if opening is None or opening.args[4] & (READ | WRITE) or other.base & WRITE:
            return None  # of the access that was asked for both say the same
    none = Right(0)
    same = [Answer(0, (fdstat._replace(base=none, inheriting=none),)) for fdstat in (mine, other)]
    return same[0], same[1]


@_rule(
    "rights are kept",
    here="`fd_fdstat_set_rights` takes rights away for good, and refuses to add any (NOTCAPABLE)",
    there="NOTSUP, or BADF for standard streams",
    why="part of preview1; a program can give up what it does not need",
    replay=(_open(b"a"), Call("fd_fdstat_set_rights", (4, 0, 0))),
)
def _kept_rights(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    refused = Errno.BADF if call.args and call.args[0] in twins.streams else Errno.NOTSUP
    if call.name != "fd_fdstat_set_rights" or theirs.errno != refused:
        return None
    if ours.errno == 0:  # what it may do from now on has no counterpart: so it is not used again
        twins.close_both(call.args[0])
    return SETTLED if ours.errno in {0, Errno.NOTCAPABLE} else None


@_aligned(
    "writing needs FD_WRITE",
    here="BADF, also where CREAT or TRUNC was given",
    there="CREAT and TRUNC make the descriptor writable",
    why="FD_READ and FD_WRITE decide on the access mode, as O_ACCMODE does",
    replay=(_open(b"a", CREAT, READ), Call("fd_write", (4, [b"x"]))),
)
def _writable_unasked(twins: Twins, call: Call, ours: Answer) -> bool:
    """Open wasmtime's anew, without what makes it writable."""
    if call.name != "path_open" or call.args[4] & WRITE or not call.args[3] & (CREAT | TRUNC):
        return False
    fd = ours.outputs[0]
    twins.on_theirs(Call("fd_close", (fd,)))
    twins.numbers[fd] = twins.on_theirs(_masked(call).replaced(3, 0)).outputs[0]
    return True


@_rule(
    "reading needs FD_READ",
    here="BADF",
    there="what was opened with neither FD_READ nor FD_WRITE can be read",
    why="FD_READ and FD_WRITE decide on the access mode, as O_ACCMODE does",
    replay=(_open(b"a", base=0), Call("fd_read", (4, [5]))),
)
def _unasked_reading(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name not in {"fd_read", "fd_pread"} or ours.errno != Errno.BADF:
        return None
    opening = twins.openings.get(call.args[0])
    if opening is None or opening.args[4] & (READ | WRITE) or theirs.errno == Errno.BADF:
        return None
    if call.name == "fd_read":
        position = twins.on_ours(Call("fd_tell", (call.args[0],))).outputs[0]
        twins.on_theirs(Call("fd_seek", (call.args[0], position, 0)))
    return SETTLED


# --- opening --------------------------------------------------------------------------------------


@_rule(
    "SYNC, DSYNC, RSYNC",
    here="opened with O_SYNC or O_DSYNC, and reported by `fd_fdstat_get`",
    there="NOTSUP",
    why="Linux has them; programs that ask for durability get it",
    replay=(_open(b"a", fdflags=SYNC),),
)
def _synchronous(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "path_open" or theirs.errno != Errno.NOTSUP or not call.args[6] & _SYNC:
        return None
    plain = _masked(call).replaced(6, call.args[6] & ~_SYNC)
    theirs = twins.on_theirs(plain)
    if ours.errno == theirs.errno == 0:
        twins.follow(call, ours, theirs)
        twins.close_both(ours.outputs[0])
        return SETTLED
    return ours, theirs


@_rule(
    "DIRECTORY on a link that is not followed",
    here="NOTDIR",
    there="LOOP",
    why="as Linux has it; the public suite accepts both",
    replay=(Call("path_open", (3, 0, b"m", DIRECTORY, int(READ), 0, 0)),),
)
def _unfollowed_directory(_: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "path_open" or call.args[1] or not call.args[3] & DIRECTORY:
        return None
    return SETTLED if (ours.errno, theirs.errno) == (Errno.NOTDIR, Errno.LOOP) else None


# --- files ----------------------------------------------------------------------------------------


def _set_time_there(twins: Twins, fd: int) -> None:
    """Give wasmtime's file the time of modification that ours has."""
    time = twins.on_ours(Call("fd_filestat_get", (fd,))).outputs[0].mtim
    given = (fd, 0, 0, 8) if time == "now" else (fd, 0, time, 4)
    twins.on_theirs(Call("fd_filestat_set_times", given))


@_rule(
    "`fd_allocate`",
    here="fallocate",
    there="NOTSUP",
    why="Linux has it; the 2025 edition of the public suite tests it",
    replay=(_open(b"a"), Call("fd_allocate", (4, 0, 100))),
)
def _allocate(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "fd_allocate" or theirs.errno != Errno.NOTSUP:
        return None
    if ours.errno == 0:
        fd, offset, length = call.args
        size = twins.on_theirs(Call("fd_filestat_get", (fd,))).outputs[0].size
        if offset + length > size:
            twins.on_theirs(Call("fd_filestat_set_size", (fd, offset + length)))
        _set_time_there(twins, fd)
    return SETTLED


@_rule(
    "`path_remove_directory` of a name with a slash behind it",
    here="the same as without",
    there="INVAL for a directory",
    why="POSIX and Linux: `rmdir d/` works",
    replay=(Call("path_remove_directory", (3, b"e/")),),
)
def _slash_behind(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "path_remove_directory" or theirs.errno != Errno.INVAL:
        return None
    path = call.args[1].rstrip(b"/")
    return (ours, twins.on_theirs(call.replaced(1, path))) if path != call.args[1] else None


@_rule(
    "names that are no UTF-8",
    here="bytes like any others",
    there="ILSEQ",
    why="files of such names exist, and can be had",
    replay=(Call("path_filestat_get", (3, 0, b"\xff")),),
)
def _not_utf8(_: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if theirs.errno != _ILSEQ or not any(
        kind == "p" and b"\xff" in value for kind, value in zip(call.inputs, call.args, strict=True)
    ):
        return None
    return SETTLED if ours.errno else None


@_rule(
    "setting neither time",
    here="an error where the path leads nowhere",
    there="without following links, always success",
    why="Linux does not even look at the path then; a program may have asked in order to know",
    replay=(Call("path_filestat_set_times", (3, 0, b"x", 0, 0, 0)),),
)
def _no_times(_: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "path_filestat_set_times" or call.args[5] or call.args[1]:
        return None
    return SETTLED if ours.errno and not theirs.errno else None


_ACTING = {"path_link", "path_remove_directory", "path_rename", "path_unlink_file"}


@_rule(
    "a link with a slash behind it, unlinked, removed, renamed or linked",
    here="NOTDIR: it is looked at as the link that it is",
    there="followed: ISDIR, PERM or whatever its target is good for",
    why="Linux does not follow it either, nor may anything be done to what is behind the link",
    replay=(Call("path_unlink_file", (3, b"m/")),),
)
def _slash_behind_link(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name not in _ACTING or ours.errno != Errno.NOTDIR:
        return None
    path = call.args[2 if call.name == "path_link" else 1]
    bare = Call("path_filestat_get", (call.args[0], 0, path.rstrip(b"/")))
    found = twins.on_ours(bare)
    is_link = found.errno == 0 and found.outputs[0].type == SYMBOLIC_LINK
    return SETTLED if path[-1:] == b"/" and is_link and theirs.errno > 0 else None


@_rule(
    "listing a directory that was removed",
    here="nothing",
    there="`.` and `..`",
    why="POSIX: there is nothing in it, and it is in nothing",
    replay=(
        _open(b"e", DIRECTORY, READ),
        Call("path_remove_directory", (3, b"e")),
        Call("fd_readdir", (4, 4096, 0)),
    ),
)
def _removed_listing(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "fd_readdir" or ours.errno or theirs.errno or ours.outputs[0].used:
        return None
    # Wherever this answer begins: when all is listed, and that is how they are compared.
    whole = Call("fd_readdir", (call.args[0], 4096, 0))
    mine, other = twins.on_ours(whole).outputs[0], twins.on_theirs(whole).outputs[0]
    names = [name for _, name in other.entries]
    return SETTLED if not mine.used and names == [b".", b".."] else None


@_rule(
    "positions beyond what the file system holds",
    here="INVAL",
    there="any position below 2^64",
    why="lseek knows each file system's limit; from 2^63 on an offset would be negative",
    replay=(_open(b"a"), Call("fd_seek", (4, 2**63 - 1, 2))),
)
def _far_positions(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "fd_seek" or (ours.errno, theirs.errno) != (Errno.INVAL, 0):
        return None
    if theirs.outputs[0] < 1 << 40:
        return None
    position = twins.on_ours(Call("fd_tell", (call.args[0],))).outputs[0]
    twins.on_theirs(Call("fd_seek", (call.args[0], position, 0)))
    return SETTLED


@_rule(
    "several buffers",
    here="all are read or written, as by readv and writev",
    there="only the first that is not empty",
    why="allowed, but every further buffer costs the program a call",
    replay=(_open(b"a"), Call("fd_write", (4, [b"x", b"yz"]))),
)
def _several_buffers(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name not in {"fd_read", "fd_pread", "fd_write", "fd_pwrite"}:
        return None
    if ours.errno or theirs.errno or sum(1 for part in call.args[1] if part) < 2:
        return None
    return ours, _continued(twins, call, theirs)


def _continued(twins: Twins, call: Call, theirs: Answer) -> Answer:
    """Go on until there is no more, as every program must be ready to."""
    writes = "write" in call.name
    left = [part for part in call.args[1] if part]
    done, data, answer = 0, b"", theirs
    while answer.errno == 0:
        count = answer.outputs[-1]
        data += b"" if writes else answer.outputs[0][:count]
        done += count
        if count < _size(left[0]) or len(left) == 1:
            break
        left = left[1:]
        again = call.replaced(1, left)
        if len(call.args) == 3:
            again = again.replaced(2, call.args[2] + done)
        answer = twins.on_theirs(again)
    if writes:
        return Answer(0, (done,))
    room = sum(call.args[1]) + 8
    return Answer(0, (data.ljust(room, bytes([UNTOUCHED])), done))


def _size(part: int | bytes) -> int:
    return part if isinstance(part, int) else len(part)


@_rule(
    "reading nothing from standard input",
    here="0 bytes",
    there="INTR",
    why="POSIX: a read of zero bytes has no other result",
    replay=(Call("fd_read", (0, [])),),
)
def _reading_nothing(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "fd_read" or sum(call.args[1]) or call.args[0] not in twins.streams:
        return None
    return SETTLED if (ours.errno, theirs.errno) == (0, _INTR) else None


@_aligned(
    "`fd_pwrite` with APPEND",
    here="writes at the offset",
    there="writes at the end",
    why="POSIX: the offset is what pwrite is for; Linux lists its own behaviour under BUGS",
    replay=(
        _open(b"a", fdflags=APPEND),
        Call("fd_pwrite", (4, [b"x"], 0)),
        Call("fd_filestat_get", (4,)),
    ),
)
def _positioned_append(twins: Twins, call: Call, ours: Answer) -> bool:
    """Move what wasmtime wrote."""
    if call.name != "fd_pwrite" or ours.outputs[0] == 0:
        return False
    if not _take_back_append(twins, call.args[0], ours.outputs[0]):
        return False
    flags = _flags_there(twins, call.args[0])
    twins.on_theirs(Call("fd_fdstat_set_flags", (call.args[0], 0)))
    twins.on_theirs(Call("fd_pwrite", (call.args[0], [b"".join(call.args[1])], call.args[2])))
    twins.on_theirs(Call("fd_fdstat_set_flags", (call.args[0], flags)))
    return True


def _flags_there(twins: Twins, fd: int) -> int:
    flags = twins.on_theirs(Call("fd_fdstat_get", (fd,))).outputs[0].flags
    assert isinstance(flags, int)
    return flags


def _take_back_append(twins: Twins, fd: int, written: int) -> bool:
    if not _flags_there(twins, fd) & APPEND:
        return False
    size = twins.on_theirs(Call("fd_filestat_get", (fd,))).outputs[0].size
    twins.on_theirs(Call("fd_filestat_set_size", (fd, size - written)))
    return True


def _refused_offset(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    """The same, where the offset is none: wasmtime does not look at it."""
    if call.name != "fd_pwrite" or theirs.errno or ours.errno not in {Errno.INVAL, _FBIG}:
        return None
    fd = call.args[0]
    if not _take_back_append(twins, fd, theirs.outputs[0]):
        return None
    _set_time_there(twins, fd)
    return SETTLED


_RESOLVED["`fd_pwrite` with APPEND"] = _refused_offset


@_aligned(
    "appending nothing",
    here="the position stays",
    there="the position moves to the end",
    why="POSIX: to write zero bytes has no other results",
    replay=(_open(b"a", fdflags=APPEND), Call("fd_write", (4, [])), Call("fd_tell", (4,))),
)
def _appended_nothing(twins: Twins, call: Call, ours: Answer) -> bool:
    """Move wasmtime's position back."""
    if call.name != "fd_write" or ours.outputs[0] or call.args[0] in twins.streams:
        return False
    if not _flags_there(twins, call.args[0]) & APPEND:
        return False
    position = twins.on_ours(Call("fd_tell", (call.args[0],))).outputs[0]
    twins.on_theirs(Call("fd_seek", (call.args[0], position, 0)))
    return True


# --- standard streams -----------------------------------------------------------------------------

_STREAM_CALLS = {
    "fd_advise",
    "fd_allocate",
    "fd_datasync",
    "fd_fdstat_set_flags",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_sync",
}


@_rule(
    "standard streams are descriptors",
    here="as Linux: `fd_fdstat_set_flags` works, the rest says why it does not (SPIPE, INVAL)",
    there="BADF",
    why="a program can make its standard input non-blocking",
    replay=(Call("fd_fdstat_set_flags", (0, 0)),),
)
def _streams(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name not in _STREAM_CALLS or call.args[0] not in twins.streams:
        return None
    if theirs.errno != Errno.BADF:
        return None
    if call.name == "fd_fdstat_set_flags" and ours.errno == 0:
        twins.on_ours(Call("fd_fdstat_set_flags", (call.args[0], 0)))
    return SETTLED


@_rule(
    "`fd_filestat_get` of standard streams",
    here="device, inode and links of the host's stream; neither size nor times",
    there="all zero",
    why="two streams can be told to be the same one",
    replay=(Call("fd_filestat_get", (0,)),),
)
def _stream_filestat(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "fd_filestat_get" or call.args[0] not in twins.streams:
        return None
    if ours.errno or theirs.errno:
        return None
    mine, other = ours.outputs[0], theirs.outputs[0]
    blank = Filestat(0, other.type, 0, 0, 0, 0)
    return SETTLED if other == blank and mine._replace(ino=0, nlink=0) == blank else None


def _static_mistakes(twins: Twins, call: Call) -> set[int]:
    """What can be seen to be wrong without looking at any file."""
    found: set[int] = set()
    for kind, value in zip(call.inputs, call.args, strict=True):
        if kind == "p" and value[:1] in {b"", b"/"}:
            found.add(Errno.PERM if value else Errno.NOENT)
        if kind == "p" and b"\0" in value:
            found.add(Errno.INVAL)
    for one in call.args[0] if call.name == "poll_oneoff" else ():
        if one.tag == 0 and one.of not in {0, 1}:
            found.add(Errno.INVAL)
        if one.tag != 0 and one.of not in twins.numbers:
            found.add(Errno.BADF)
    if call.name in {"fd_pread", "fd_pwrite"}:
        found |= {Errno.INVAL} if call.args[2] >= 1 << 63 else set()
        found |= {Errno.SPIPE} if call.args[0] in twins.streams else set()
        access = READ if call.name == "fd_pread" else WRITE
        opening = twins.openings.get(call.args[0])
        found |= {Errno.BADF} if opening and not opening.args[4] & access else set()
    return found


@_rule(
    "two mistakes in one call",
    here="arguments first, in their order; then what the paths lead to",
    there="in another order: a path is resolved before the next is looked at",
    why="an order is not defined",
    replay=(Call("path_symlink", (b"", 3, b"../x")),),
)
def _two_mistakes(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    found = _static_mistakes(twins, call)
    if ours.errno not in found or theirs.errno <= 0:
        return None
    return SETTLED if theirs.errno in found or call.inputs.count("p") > 1 else None


@_rule(
    "paths beneath what is no directory",
    here="NOTDIR",
    there="NOTDIR from `path_open` on a file, else BADF",
    why="POSIX: openat and its family",
    replay=(_open(b"a"), Call("path_unlink_file", (4, b"b"))),
)
def _not_a_directory(twins: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "fd_readdir" and "p" not in call.inputs:
        return None
    if (ours.errno, theirs.errno) != (Errno.NOTDIR, Errno.BADF):
        return None
    kinds = [twins.kind(fd) for fd in call.descriptors()]
    return SETTLED if "file" in kinds or "stream" in kinds else None


# --- clocks and waiting ---------------------------------------------------------------------------


@_rule(
    "clocks of processor time",
    here="both work",
    there="BADF",
    why="Linux has them, and C's clock() wants one",
    replay=(Call("clock_time_get", (2, 0)),),
)
def _processor_clocks(_: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name not in {"clock_res_get", "clock_time_get"} or call.args[0] not in {2, 3}:
        return None
    return SETTLED if (ours.errno, theirs.errno) == (0, Errno.BADF) else None


@_rule(
    "a subscription that cannot be",
    here="an event with its errno, beside the others",
    there="the whole call fails; for a file without FD_WRITE the event says that all is well",
    why="that is what an event's errno is for",
    replay=(Call("poll_oneoff", ((Subscription(1, 3), Subscription(0, 1)),)),),
)
def _bad_subscription(_: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "poll_oneoff" or ours.errno or not any(event.error for event in ours.outputs):
        return None
    if theirs.errno in {Errno.BADF, Errno.INVAL, TRAP}:
        return SETTLED
    if theirs.errno:
        return None
    bad = {event.userdata for event in ours.outputs if event.error}
    if all(call.args[0][index].tag == 0 for index in bad):
        return None
    mine, other = (
        Answer(0, tuple(event for event in side.outputs if event.userdata not in bad))
        for side in (ours, theirs)
    )
    return SETTLED if set(other.outputs) <= set(mine.outputs) else None


@_rule(
    "everything that is ready is reported",
    here="at once, in one answer",
    there="only a part of it",
    why="allowed, but the rest costs the program another call",
    replay=(Call("poll_oneoff", ((Subscription(2, 1), Subscription(0, 0, 1, 1)),)),),
)
def _partial_events(_: Twins, call: Call, ours: Answer, theirs: Answer) -> Pair | None:
    if call.name != "poll_oneoff" or ours.errno or theirs.errno:
        return None
    part = set(theirs.outputs) < set(ours.outputs) and len(theirs.outputs) > 0
    return SETTLED if part else None
