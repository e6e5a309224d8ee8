"""Hypothesis strategies for sequences of WASI calls: small alphabets, so that names collide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.conformance.twins import Call, Subscription
from tests.wasi_shim.calls import (
    APPEND,
    CREAT,
    DIRECTORY,
    DSYNC,
    EXCL,
    NONBLOCK,
    RSYNC,
    SYNC,
    TRUNC,
    Right,
)

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

# --- values ---------------------------------------------------------------------------------------

ROOT, UNKNOWN_FD = 3, 77
FILE, FOLDER, OTHER_FILE = 4, 5, 6  # what most sequences open first, in this order
descriptors = st.sampled_from(
    [ROOT, FILE, FOLDER, OTHER_FILE] * 5 + [ROOT, FILE, 7, 0, 1, 2, UNKNOWN_FD, 2**32 - 1]
)
directories = st.sampled_from([ROOT] * 24 + [FOLDER] * 10 + [FILE, 7, 0, UNKNOWN_FD])
files = st.sampled_from([FILE] * 24 + [OTHER_FILE] * 8 + [FOLDER, ROOT, 7, 0, 1, 2, UNKNOWN_FD])

# "l" is a link to "a", "m" to "d", "n" leads out; "d" and "e" are directories. See `populate`.
_names = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"d", b"l", b"m", b"n", b".", b".."])
_separators = st.sampled_from([b"/"] * 6 + [b"//", b"/./"])
_ends = st.sampled_from([b""] * 8 + [b"/", b"//", b"/."])
_starts = st.sampled_from([b""] * 20 + [b"/", b"./", b"../"])


@st.composite
def _paths(draw: st.DrawFn) -> bytes:
    path = draw(_starts) + draw(_names)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        path += draw(_separators) + draw(_names)
    return path + draw(_ends)


_simple = st.sampled_from(
    [
        b"a",
        b"b",
        b"c",
        b"d",
        b"e",
        b"d/a",
        b"d/b",
        b"d/c",
        b"e/a",
        b"e/d",
        b"l",
        b"m/b",
        b"./a",
        b"d/",
    ]
)
_odd = st.sampled_from([b"", b"/", b"a\0", b"a" * 256, b"b/" + b"a" * 256])
paths = st.integers(0, 31).flatmap(lambda n: _odd if n == 31 else _simple if n < 18 else _paths())

offsets = st.sampled_from([0, 1, 3, 5, 10, 4096] * 2 + [2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
_allocated = st.sampled_from([0, 1, 5, 4096, 2**63, 2**64 - 1])  # nothing that could fill the disk
distances = st.sampled_from([0, 1, 3, 10, 100, 0, 2, -1, -3, -(2**40), 2**40, 2**63 - 1, -(2**63)])
sizes = st.sampled_from([0, 1, 2, 3, 5, 10, 100])
texts = st.sampled_from([b"", b"x", b"yz", b"w" * 30])
size_lists = st.lists(sizes, max_size=3)
text_lists = st.lists(texts, max_size=3)
buffers = st.sampled_from([0, 1, 2, 23, 24, 25, 26, 49, 51, 100] + [4096] * 6)
follow = st.sampled_from([0] * 15 + [1] * 15 + [2])
times = st.sampled_from([0, 1, 999_999_999, 10**9, 10**18 + 7, 2**63 - 1, 2**63, 2**64 - 1])
time_flags = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 5, 5, 10, 16])
clocks = st.sampled_from([0, 1, 2, 3, 4, 99])

_OPEN_FLAGS = [0, CREAT, CREAT | EXCL, DIRECTORY, TRUNC, CREAT | TRUNC]
open_flags = st.sampled_from([*_OPEN_FLAGS * 6, *range(17)])
fd_flags = st.sampled_from(
    [0] * 12 + [APPEND] * 8 + [NONBLOCK, APPEND | NONBLOCK, SYNC, DSYNC, RSYNC, 32]
)

_READ, _WRITE, _ALL = int(Right.FD_READ), int(Right.FD_WRITE), 2**30 - 1
_DIRECTORY_RIGHTS = _ALL & ~_WRITE
access = st.sampled_from(
    [_READ] * 3 + [_READ | _WRITE] * 5 + [_WRITE, 0, _ALL, _DIRECTORY_RIGHTS, int(Right.FD_READDIR)]
)
rights = st.sampled_from([0, _READ, _WRITE, _ALL, _ALL, _DIRECTORY_RIGHTS] * 4 + [2**64 - 1])

# A clock that is due, and descriptors; never one that has to be waited for.
subscriptions = st.one_of(
    st.builds(Subscription, st.just(0), clocks, st.just(0), st.just(0)),
    st.builds(Subscription, st.just(0), st.sampled_from([0, 1]), st.just(1), st.just(1)),
    st.builds(Subscription, st.sampled_from([1, 2]), descriptors, st.just(0), st.just(0)),
)

_link_flags = st.sampled_from([0] * 14 + [1, 2])
_existing = st.one_of(st.sampled_from([b"a", b"d/b", b"l", b"e", b"d/l", b"b"]), paths)
_new = st.one_of(st.sampled_from([b"b", b"c", b"e/a", b"d/c"]), paths)
_links = st.one_of(st.sampled_from([b"l", b"m", b"n", b"d/l"]), paths)
_found = st.one_of(paths, paths, paths, st.sampled_from([b"a", b"d", b"\xff", b"e/\xff"]))
_removed = st.one_of(st.sampled_from([b"e", b"d/e", b"d", b"c"]), paths)

# --- calls ----------------------------------------------------------------------------------------

_ARGUMENTS: dict[str, tuple[SearchStrategy[object], ...]] = {
    "args_sizes_get": (),
    "clock_res_get": (clocks,),
    "clock_time_get": (clocks, st.sampled_from([0, 1, 2**64 - 1])),
    "environ_sizes_get": (),
    "fd_advise": (files, offsets, offsets, st.integers(0, 6)),
    "fd_allocate": (files, _allocated, _allocated),
    "fd_close": (descriptors,),
    "fd_datasync": (files,),
    "fd_fdstat_get": (descriptors,),
    "fd_fdstat_set_flags": (files, fd_flags),
    "fd_fdstat_set_rights": (descriptors, rights, rights),
    "fd_filestat_get": (descriptors,),
    "fd_filestat_set_size": (files, offsets),
    "fd_filestat_set_times": (descriptors, times, times, time_flags),
    "fd_pread": (files, size_lists, offsets),
    "fd_prestat_dir_name": (descriptors, st.integers(0, 3)),
    "fd_prestat_get": (descriptors,),
    "fd_pwrite": (files, text_lists, offsets),
    "fd_read": (files, size_lists),
    "fd_readdir": (directories, buffers, st.sampled_from([0, 0, 0, 2**63 - 1, 2**64 - 1])),
    "fd_renumber": (descriptors, descriptors),
    "fd_seek": (files, distances, st.integers(0, 3)),
    "fd_sync": (files,),
    "fd_tell": (files,),
    "fd_write": (files, text_lists),
    "path_create_directory": (directories, _new),
    "path_filestat_get": (directories, follow, _found),
    "path_filestat_set_times": (directories, follow, paths, times, times, time_flags),
    "path_link": (directories, _link_flags, _existing, directories, _new),
    "path_open": (directories, follow, paths, open_flags, access, rights, fd_flags),
    "path_readlink": (directories, _links, buffers),
    "path_remove_directory": (directories, _removed),
    "path_rename": (directories, _existing, directories, paths),
    "path_symlink": (paths, directories, _new),
    "path_unlink_file": (directories, _existing),
    "poll_oneoff": (st.lists(subscriptions, max_size=3).map(tuple),),
    "random_get": (st.sampled_from([0, 1, 64, 65536]),),
    "sched_yield": (),
    "sock_accept": (files, fd_flags),
    "sock_recv": (files, size_lists, st.integers(0, 4)),
    "sock_send": (files, text_lists, st.just(0)),
    "sock_shutdown": (files, st.integers(0, 4)),
}
_SELDOM = {name for name in _ARGUMENTS if not name.startswith(("fd_", "path_", "poll"))}
_OFTEN = {
    "fd_fdstat_set_rights": 1,
    "fd_pread": 5,
    "fd_pwrite": 5,
    "fd_read": 5,
    "fd_write": 6,
    "path_filestat_get": 5,
    "path_link": 6,
    "path_open": 10,
    "path_remove_directory": 5,
    "path_rename": 8,
    "path_symlink": 4,
    "path_unlink_file": 5,
}


def _weight(name: str) -> int:
    return 1 if name in _SELDOM else _OFTEN.get(name, 3)


def _call(name: str) -> SearchStrategy[Call]:
    return st.tuples(*_ARGUMENTS[name]).map(lambda args: Call(name, args))


calls = st.sampled_from([name for name in _ARGUMENTS for _ in range(_weight(name))]).flatmap(_call)
"""Any call."""

# Most sequences open something first: without descriptors half of all calls have nothing to do.
_files_opened = st.builds(
    lambda path, oflags, access, fdflags: Call(
        "path_open", (ROOT, 1, path, oflags, access, _ALL, fdflags)
    ),
    st.sampled_from([b"a", b"b", b"d/b", b"l", b"e/a"]),
    st.sampled_from([CREAT, CREAT, CREAT | TRUNC]),
    st.sampled_from([_READ | _WRITE] * 6 + [_READ, _WRITE, 0]),
    st.sampled_from([0, 0, APPEND]),
)
_directories_opened = st.builds(
    lambda path: Call("path_open", (ROOT, 1, path, DIRECTORY, _DIRECTORY_RIGHTS, _ALL, 0)),
    st.sampled_from([b"d", b"e", b"m", b"."]),
)
_openings = st.tuples(_files_opened, _directories_opened, _files_opened)
sequences = st.builds(
    lambda opened, count, rest: [*opened[:count], *rest],
    _openings,
    st.sampled_from([3, 3, 3, 2, 1, 0]),
    st.lists(calls, min_size=1, max_size=15),
)
"""Calls, to be made one after the other."""
