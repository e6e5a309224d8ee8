"""Which system calls a policy grants, by their names and groups alone.

What calls there are is the core's to know. It hands over a catalogue, name to group, so that no
call can be granted here that nobody serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._errors import PolicyError
from ._metadata import METADATA_WRITERS
from ._model import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ._model import Parts, Syscalls

    # Whether a call is granted, the key that decides it, and why.
    Ruling = tuple[bool, str, str]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# No program starts, has memory or ends without these: they are granted whatever a policy allows,
# and no denial of a group reaches them. One that is denied by its name is denied.
ESSENTIAL = _names("brk exit exit_group madvise mmap mprotect mremap munmap")
ESSENTIAL |= _names("rt_sigreturn set_tid_address")

# What nearly every program makes besides: one that is refused these ends without a word.
USUAL = ESSENTIAL | _names("write writev")

# What follows from the tables of a policy that allows no calls by name. First what reaches nothing
# but the guest's own process and the descriptors that it was given.
ALWAYS = frozenset({"@default", "@basic-io", "@io-event", "@timer", "@signal"})
OWN = _names("""
    fcntl fstat getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getresgid
    getresuid getrlimit getrusage getsid gettid getuid sched_getaffinity sched_yield sysinfo times
    umask uname
""")
WITH_FILES = frozenset({"@file-system", "@chown", "@sync"})
WITH_NETWORK = frozenset({"@network-io"})
# systemd counts execve among @default, since it starts services with it.
ONLY_NAMED = _names("execve execveat")
WITH_PROGRAMS = _names("execve execveat fork vfork wait4 waitid pipe pipe2")

# Calls that do the same by other arguments: whoever denies one means them all. A call can be in
# more than one line.
FAMILIES = tuple(
    _names(line)
    for line in """
        access faccessat faccessat2
        accept accept4
        chdir fchdir
        chmod fchmod fchmodat fchmodat2
        chown fchown fchownat lchown
        dup dup2 dup3
        epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait
        eventfd eventfd2
        execve execveat
        exit exit_group
        fork vfork clone clone3
        getdents getdents64
        getrlimit prlimit64
        getxattr lgetxattr fgetxattr getxattrat
        inotify_init inotify_init1
        kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal
        link linkat
        listxattr llistxattr flistxattr listxattrat
        mkdir mkdirat
        mknod mknodat
        nanosleep clock_nanosleep
        open openat openat2 open_by_handle_at creat
        pipe pipe2
        poll ppoll
        read readv pread64 preadv preadv2 sendfile copy_file_range
        readlink readlinkat
        recv recvfrom recvmsg recvmmsg
        removexattr lremovexattr fremovexattr removexattrat
        rename renameat renameat2
        select pselect6
        send sendto sendmsg sendmmsg
        setrlimit prlimit64
        setuid setreuid setresuid setfsuid
        setgid setregid setresgid setfsgid
        setxattr lsetxattr fsetxattr setxattrat
        signalfd signalfd4
        stat lstat fstat fstatat newfstatat statx
        statfs fstatfs
        symlink symlinkat
        sync syncfs
        truncate ftruncate
        unlink unlinkat rmdir
        utime utimes futimesat utimensat
        wait4 waitid waitpid
        write writev pwrite64 pwritev pwritev2 sendfile copy_file_range
    """.strip().splitlines()
)


def granted(parts: Parts, catalogue: Mapping[str, str]) -> frozenset[str]:
    """Return the calls of a catalogue that a policy grants.

    Raises:
        PolicyError: an entry names neither a call nor a group of the catalogue.
    """
    return frozenset(name for name, ruling in rulings(parts, catalogue).items() if ruling[0])


def withheld(parts: Parts, catalogue: Mapping[str, str]) -> dict[str, str]:
    """Return the usual calls that a policy does not grant, each with the key that decides it.

    Raises:
        PolicyError: an entry names neither a call nor a group of the catalogue.
    """
    if parts.syscalls.on_deny == "log":
        return {}
    found = rulings(parts, catalogue)
    return {name: found[name][1] for name in sorted(USUAL & found.keys()) if not found[name][0]}


def rulings(parts: Parts, catalogue: Mapping[str, str]) -> dict[str, Ruling]:
    """Decide on every call of a catalogue: whether it is granted, by which key, and why.

    Raises:
        PolicyError: an entry names neither a call nor a group of the catalogue.
    """
    problems = list(unknown(_entries(parts.syscalls), catalogue))
    if problems:
        raise PolicyError(Problem(parts.source, *problem) for problem in problems)
    denied = _denied(parts.syscalls.deny, catalogue)
    listed = _listed if parts.syscalls.allow is not None else _follows
    lists = [(f"syscalls.within[{i}]", names) for i, names in enumerate(parts.syscalls.within)]

    def rule(name: str, group: str) -> Ruling:
        if name in denied:
            return False, "syscalls.deny", f"{denied[name]!r} is denied"
        if name in ESSENTIAL:
            return True, "always", "no program starts, has memory or ends without it"
        first = listed(parts, name, group)
        if not first[0]:
            return first
        if parts.view == "off" and name in METADATA_WRITERS:
            return False, "view", "without a view nothing holds it to the files that are granted"
        for key, names in lists:
            if name not in names and group not in names:
                return False, key, f"neither {name!r} nor {group!r} is in it"
        return first

    return {name: rule(name, group) for name, group in catalogue.items()}


def _listed(parts: Parts, name: str, group: str) -> Ruling:
    allow = parts.syscalls.allow or ()
    for entry in (name, group):
        if entry in allow:
            return True, "syscalls.allow", f"{entry!r} is in it"
    return False, "syscalls.allow", f"neither {name!r} nor {group!r} is in it"


def _follows(parts: Parts, name: str, group: str) -> Ruling:
    """What the tables of a policy come to that allows no calls by name."""
    if parts.filesystem.exec and name in WITH_PROGRAMS:
        return True, "filesystem.exec", "it is what starting a program takes"
    if name in ONLY_NAMED:
        return False, "default", f"{name!r} has to be allowed by its name"
    if name in OWN or group in ALWAYS:
        return True, "always", "it reaches nothing but the guest's own process and descriptors"
    network = parts.network
    files = parts.filesystem
    if group in WITH_FILES and (files.readable or files.devices or network.unix):
        return True, "filesystem", f"{group!r} goes with files that are granted"
    if group in WITH_NETWORK and (network.connect or network.listen or network.unix):
        return True, "network", f"{group!r} goes with sockets that are granted"
    return False, "default", f"{group!r} has to be allowed by its name"


def variants(name: str) -> frozenset[str]:
    """Return a call's name and those of all calls that do the same."""
    return frozenset({name}).union(*(family for family in FAMILIES if name in family))


def _denied(entries: Iterable[str], catalogue: Mapping[str, str]) -> dict[str, str]:
    """Map each call that is denied to the entry that does."""
    denied: dict[str, str] = {}
    for entry in entries:
        if entry.startswith("@"):
            members = (name for name, group in catalogue.items() if group == entry)
            names = frozenset().union(*map(variants, members)) - ESSENTIAL
        else:
            names = variants(entry)
        denied |= dict.fromkeys(names - denied.keys(), entry)
    return denied


def unknown(
    syscalls: Iterable[tuple[str, str]], catalogue: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Find which entries, each with its key, name nothing of a catalogue: the key, and why."""
    known = {*catalogue, *catalogue.values()}
    # A variant that is not served may well be what the author knows the call by.
    deniable = known.union(*FAMILIES)
    for key, entry in syscalls:
        if entry not in (deniable if key.startswith("syscalls.deny") else known):
            yield key, _message(entry, known)


def _entries(syscalls: Syscalls) -> Iterator[tuple[str, str]]:
    for key, entries in (
        ("allow", syscalls.allow or ()),
        *(("within", entries) for entries in syscalls.within),
        ("deny", syscalls.deny),
    ):
        yield from ((f"syscalls.{key}", entry) for entry in entries)


def _message(entry: str, known: set[str]) -> str:
    import difflib

    group = entry.startswith("@")
    alike = [name for name in sorted(known) if name.startswith("@") == group]
    near = sorted(variants(entry) & known) or difflib.get_close_matches(entry, alike)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    elif group:
        hint = f"there are {', '.join(alike)}"
    else:
        hint = "what is not served is never granted, so remove it"
    return f"{entry!r} is no {'group' if group else 'call'} of this version: {hint}"
