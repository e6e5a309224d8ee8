"""The numbers that the core decides by are Linux's, on both processors.

The headers of Linux and of a C library come with the compiler, for every processor: this needs no
machine of either kind.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wali_core._constants import CONSTANTS
from wali_core.native import compile as compiler
from wali_core.programs import _memory as memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TABLE = compiler.TABLE.read_text()

# Ours, or of another form: the guest's flags of open(2) are x86-64's everywhere, and musl counts
# O_PATH among its access modes.
OWN = re.compile(
    r"GUEST_\w+|O_TMPFILE_BIT|O_ACCMODE|SOCK_TYPE|SOCK_MAX|FUTEX_COMMAND|NSEC"
    r"|(FEW_)?MESSAGE_FLAGS|PROT_READ_WRITE|MAP_PRIVATE_ANONYMOUS|UCONTEXT_\w+|FUTEX_(PLAIN|TIMED|TWO)|SA_KNOWN"
)

HEADERS = """
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <linux/openat2.h>
#include <linux/sockios.h>
"""
# What a C library names otherwise, or not at all; asm/socket.h and the like cannot be had as well.
NAMED_OTHERWISE = """
#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000
#endif
"""

# A struct of the core's, its header, the kernel's; and fields: the core's name, the kernel's.
LAYOUTS = """
#include "linux.h"
#define open_how kernels_open_how /* which eventpoll.h brings along */
#include <asm/stat.h>
#include <asm/statfs.h>
#include <asm/termios.h>
#include <linux/eventpoll.h>
#define SAME(field, kernels)                                                                      \\
    _Static_assert(offsetof(kernel_stat_t, field) == offsetof(struct stat, kernels), #field)
_Static_assert(sizeof(kernel_stat_t) == sizeof(struct stat), "struct stat");
SAME(st_dev, st_dev);
SAME(st_ino, st_ino);
SAME(st_nlink, st_nlink);
SAME(st_mode, st_mode);
SAME(st_uid, st_uid);
SAME(st_gid, st_gid);
SAME(st_rdev, st_rdev);
SAME(st_size, st_size);
SAME(st_blksize, st_blksize);
SAME(st_blocks, st_blocks);
SAME(times[0].tv_sec, st_atime);
SAME(times[1].tv_nsec, st_mtime_nsec);
SAME(times[2].tv_nsec, st_ctime_nsec);
_Static_assert(sizeof(struct guest_stat) == 144, "WALI's struct stat");
_Static_assert(sizeof(struct statfs) == 120, "struct statfs");
_Static_assert(sizeof(struct termios) == 36, "struct termios");
_Static_assert(sizeof(struct winsize) == 8, "struct winsize");
#if defined(__x86_64__)
_Static_assert(sizeof(struct epoll_event) == 12, "struct epoll_event");
#else
_Static_assert(sizeof(struct epoll_event) == 16, "struct epoll_event");
#endif
"""


def complaints(text: str, arch: str, folder: Path) -> str:
    """Return what a compiler for the processor says of a C file."""
    source = folder / "asserts.c"
    source.write_text(text)
    compiler._load(compiler.NATIVE / "generate.py").generate(compiler.TABLE, folder, arch)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-musl"]
    command += ["-c", f"-I{compiler.NATIVE}", f"-I{folder}", str(source), "-o", f"{source}.o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr


def asserts(numbers: Iterable[tuple[str, int]]) -> Iterator[str]:
    """A line of C for each name."""
    for name, value in numbers:
        yield f'_Static_assert((unsigned)({name}) == (unsigned)({value}), "{name}");'


def listed(name: str) -> list[tuple[str, tuple[int, ...]]]:
    """The rows of one of the table's lists, by the names in the comments beside them."""
    text = TABLE.partition(f"\n{name}: Final = (\n")[2].partition("\n)\n")[0]
    rows = re.findall(r"^    \((.*?)\),  # (\w+)", text, re.MULTILINE)
    assert len(rows) == text.count("\n") + 1
    return [(name, tuple(int(n, 0) for n in row.split(", "))) for row, name in rows]


@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_constants_are_linuxs(arch: str, tmp_path: Path) -> None:
    """Every constant of the core's has the value of the system's header."""
    column = list(compiler.ARCHITECTURES).index(arch)
    numbers = [
        (name, value[column] if isinstance(value, tuple) else value)
        for name, value in CONSTANTS.items()
        if not OWN.fullmatch(name)
    ]
    text = HEADERS + NAMED_OTHERWISE + "\n".join(asserts(numbers))

    assert len(numbers) > 100
    assert complaints(text, arch, tmp_path) == ""


@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_lists_are_of_what_they_say(arch: str, tmp_path: Path) -> None:
    """Socket options, ioctls and commands of fcntl have the numbers of their names."""
    levels = {"SO": "SOL_SOCKET", "TCP": "IPPROTO_TCP", "IP": "IPPROTO_IP", "IPV6": "IPPROTO_IPV6"}
    numbers: list[tuple[str, int]] = []
    for name, (level, number, _) in listed("SOCKET_OPTIONS"):
        numbers += [(name, number), (levels[name.partition("_")[0]], level)]
    for name, (number, _) in [*listed("IOCTLS"), *listed("FCNTLS")]:
        numbers.append((name, number))
    text = HEADERS + "\n".join(asserts(numbers))

    assert len(numbers) > 150
    assert complaints(text, arch, tmp_path) == ""


@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_mappings_are_asked_for_in_linuxs_words(arch: str, tmp_path: Path) -> None:
    """What the address space is managed with has the same numbers on both processors."""
    numbers = [
        (name, value)
        for name, value in vars(memory).items()
        if re.fullmatch(r"(PROT|MAP|MREMAP)_[A-Z_]+", name)
    ]
    text = HEADERS + "\n".join(asserts(numbers))

    assert len(numbers) > 15
    assert complaints(text, arch, tmp_path) == ""


@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
def test_structs_are_linuxs(arch: str, tmp_path: Path) -> None:
    """The kernel's structs have the core's layout, and the sizes of the lists."""
    text = LAYOUTS.replace("winsize", "winsize")

    assert complaints(text, arch, tmp_path) == ""


def test_a_wrong_number_is_seen(tmp_path: Path) -> None:
    """The compiler does compare."""
    text = HEADERS + "\n".join(asserts([("EPERM", 2)]))

    assert "static assertion failed" in complaints(text, "aarch64", tmp_path)
