"""The command ``wali``."""

from __future__ import annotations

import os
import sys
import time

from wali_core._options import SWITCH, VALUE, VALUES, OptionError, parse
from wali_core._terminal import (
    DENIED,
    REFUSED,
    SIGINT,
    TIMED_OUT,
    TRAPPED,
    USAGE_ERROR,
    USED_UP,
    Refusal,
    default_interrupt,
    end_by,
    on_terminal,
    print_text,
    require_file,
    say,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Final

    from capabilities import Policy
    from wali_core._engine import Module
    from wali_core._follow import Record
    from wali_core._guest import Guest
    from wali_core._options import Options
    from wali_core._runtime import Runtime
    from wali_core._sockets import Socket

USAGE: Final = """\
usage: wali run [OPTIONS] FILE [ARGS...]     run a program
       wali inspect FILE                     say which interface a module imports, and what from it
       wali policy check POLICY...           say whether policies are right
       wali policy show POLICY               print one in full, with what it extends
       wali policy explain POLICY [REQUEST]  say what it grants, and who holds a program to that
                                             here; or decide on a request: 'openat /etc/passwd'
       wali policy learn [--out NEW] [OPTIONS] FILE [ARGS...]
                                             run a program with everything granted, and write the
                                             least policy under which that run would have passed
       wali --version

Options of run, before FILE (everything after it is the program's):
  --dir HOST[::GUEST][:ro|:rw]  grant a directory, under its own name or as GUEST; read-only if
                                nothing else is said
  --env NAME[=VALUE]            set a variable, or pass on this process's
  --tcplisten HOST:PORT         give the program a socket that listens there
  --listenfd                    give it the sockets that systemd has passed (LISTEN_FDS)
  --policy POLICY               grant what a policy says: a file (TOML), or pure-compute, cli-tool,
                                server
  --allow-all                   grant every file, the working directory and the environment
  --timeout TIME                end the program after 2s, 500ms, 1.5m; with status 124
  --memory SIZE                 the most memory that it may have: 64M, 1G
  --strict-rights               give it no right on what it opens that it does not ask for
  --argv0 NAME                  what the program sees as its own name
  --invoke NAME                 call this function of a library: ARGS are its numbers, its results
                                are printed
  --warn-missing                name the system calls that a WALI program imports and nobody serves
  --no-cache                    neither read nor write compiled modules

The status is the program's own; 124: time-out; 126: refused, or not runnable; 127: not found;
128+N: ended by signal N (134: it trapped).
"""

_RUN_OPTIONS: Final = {
    "dir": VALUES,
    "env": VALUES,
    "tcplisten": VALUES,
    "listenfd": SWITCH,
    "policy": VALUE,
    "allow-all": SWITCH,
    "timeout": VALUE,
    "memory": VALUE,
    "strict-rights": SWITCH,
    "argv0": VALUE,
    "invoke": VALUE,
    "no-cache": SWITCH,
    "warn-missing": SWITCH,
    "help": SWITCH,
}

# A compilation below this size takes no time that anybody would notice.
_SLOW_TO_COMPILE: Final = 300_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status.

    Without ``argv`` the process is the command's: the arguments are its own, and it ends here.
    """
    if argv is not None:
        return _command(argv)
    status = _command(sys.argv[1:])
    # All is written; taking the interpreter down would take as long as a small guest runs.
    os._exit(status)


def _command(words: Sequence[str]) -> int:
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "run": _run,
        "inspect": _inspect,
        "policy": _policy,
    }
    if words and words[0] in commands:
        return _reporting(lambda: commands[words[0]](words[1:]))
    if list(words) == ["--version"]:
        return _reporting(_version)
    if list(words) in (["--help"], ["-h"], ["help"]):
        return _reporting(_help)
    hint = f"unknown command {words[0]!r}: " if words else ""
    return say(f"{hint}try 'wali --help'", USAGE_ERROR)


def _reporting(command: Callable[[], int]) -> int:
    from wali_core._errors import (
        GuestDenied,
        GuestError,
        GuestLimit,
        GuestTimeout,
        GuestTrap,
        WaliError,
    )

    try:
        return command()
    except Refusal as refusal:
        return say(str(refusal), refusal.status)
    except OptionError as error:
        return say(f"{error} (try 'wali --help')", USAGE_ERROR)
    except GuestTimeout as error:
        return say(str(error), TIMED_OUT)
    except GuestLimit as error:
        return say(str(error), USED_UP.get(error.limit, TRAPPED))
    except GuestDenied as error:
        return say(str(error), DENIED)
    except GuestTrap as error:
        where = "".join(f"\n    in {name}" for name in error.frames[:_FRAMES_SHOWN])
        return say(f"the program trapped: {error}{where}", TRAPPED)
    except GuestError as error:
        return say(str(error), TRAPPED)
    except WaliError as error:
        return say(str(error), REFUSED)
    except OSError as error:
        return say(f"{error.filename or 'the system'}: {error.strerror or error}", REFUSED)
    except KeyboardInterrupt:
        return end_by(SIGINT)


_FRAMES_SHOWN: Final = 12


# --- wali run -------------------------------------------------------------------------------------


def _run(words: Sequence[str]) -> int:
    return _run_with(parse(words, _RUN_OPTIONS))


def _run_with(options: Options, record: Record | None = None) -> int:
    """Run a program; or, with a record, learn from it: all is granted, and written down there.

    All but the environment: which variables a program looks at cannot be seen.
    """
    from wali_core._confine import claim_view
    from wali_core._grants import load_policy

    started = time.monotonic()
    default_interrupt()
    if "help" in options:
        return _help()
    if not options.rest:
        raise OptionError("run needs the FILE of a program")
    path, *args = options.rest
    require_file(path)
    timeout = _amount("timeout", options["timeout"])
    memory = _amount("memory", options["memory"])
    dirs = _directories(options.all("dir"))
    env = dict(pair for text in options.all("env") for pair in _variable(text))
    sockets = _sockets(options)
    policy = load_policy(options["policy"])
    allow_all = "allow-all" in options or record is not None
    if allow_all or (policy is not None and policy.filesystem.exec):
        _look_after_native(path, started, timeout, policy)
    if not allow_all:
        claim_view(policy)
    elif record is None and on_terminal():
        say("--allow-all: the program can read and change all that you can", 0)
    if policy is not None and "allow-all" in options:
        say(f"--allow-all lifts what {options['policy']} refuses, and leaves its limits", 0)

    # Not before: wasmtime's library may start threads.
    from wali_core._plan import Plan
    from wali_core._runtime import Runtime
    from wali_core._stdio import Streams

    # Nothing is freed piece by piece: the process is the guest's, and ends with it.
    runtime = Runtime(
        policy=policy,
        allow_all=allow_all,
        cache="no-cache" not in options,
        on_compile=_tell_compiling if on_terminal() else None,
        on_missing=_tell_missing if "warn-missing" in options else None,
        on_fallback=_tell_fallback if on_terminal() else None,
        parallel=allow_all or not _reaches_proc(dirs.values(), policy),
        stack=_stack(),
        record=record,
    )
    module = _loaded(runtime, path)
    grants = runtime.grants(
        env,
        dirs,
        sockets,
        wall_time=timeout,
        memory=None if memory is None else int(memory),
        strict_rights="strict-rights" in options,
    )
    if record is not None:
        grants.env = env
    grants.count_from(started)
    streams = Streams(None, None, None, capture=False, limit=0)
    use, args = _invocation(options["invoke"], args)
    plan = Plan(module, grants, streams, args=args, argv0=options["argv0"])
    ending = runtime.execute(plan, use, own_process=True)
    if ending.write_refused and on_terminal():
        say("hint: a write was refused by a read-only directory; --dir HOST::GUEST:rw grants it", 0)
    return ending.status & 0xFF


def _look_after_native(
    path: str, started: float, timeout: float | None, policy: Policy | None
) -> None:
    """Where a program has a deadline and may execute a native one, watch from outside."""
    limits = [timeout, None if policy is None else policy.limits.wall_time]
    seconds = min((limit for limit in limits if limit is not None), default=None)
    if seconds is None or not _imports_execve(path):
        return
    from wali_core._errors import GuestTimeout
    from wali_core.processes._supervisor import stay_behind

    stay_behind(started + seconds, f"wali: {GuestTimeout(seconds)}\n".encode())


def _imports_execve(path: str) -> bool:
    """May a file be a WALI program that does?  What cannot be read is found to be so later."""
    try:
        with open(path, "rb") as file:
            # A device may have no end: only a module is read whole.
            return file.read(4) == b"\0asm" and b"SYS_execve" in file.read()
    except OSError:
        return False


def _reaches_proc(dirs: Iterable[tuple[str, str]], policy: Policy | None) -> bool:
    """Would a program find procfs?  By it, it could get at threads that compiled it."""
    from wali_core._grants import reaches_proc

    hosts = [host for host, _ in dirs]
    if policy is not None:
        hosts += [grant.host for grant in policy.filesystem.readable]
    return any(map(reaches_proc, hosts))


def _invocation(
    name: str | None, words: list[str]
) -> tuple[Callable[[Guest], None] | None, list[str]]:
    """What ``--invoke`` does with the guest, and the arguments that are left for a program."""
    if name is None:
        return None, words
    from wali_core._invoke import ArgumentError, invoke

    def use(guest: Guest) -> None:
        try:
            text = invoke(guest, name, words)
        except ArgumentError as error:
            raise Refusal(f"--invoke: {error}", USAGE_ERROR) from None
        print_text(text)

    return use, []


def _loaded(runtime: Runtime, path: str) -> Module:
    try:
        return runtime.load(path)
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}", REFUSED) from None


def _directories(given: Iterable[str]) -> dict[str, tuple[str, str]]:
    """What ``--dir`` grants, by the guest's names.  None twice: which is meant nobody can know."""
    from wali_core._grants import guest_path

    first: dict[str, str] = {}
    found = {}
    for text in given:
        guest, place = _directory(text)
        path = guest if guest == "." else guest_path(guest)
        before = first.setdefault(path, text)
        if before is not text:
            raise OptionError(f"--dir {text}: the guest has --dir {before} under that name already")
        found[guest] = place
    return found


def _directory(text: str) -> tuple[str, tuple[str, str]]:
    """``HOST[::GUEST][:ro|:rw]`` as (guest, (host, mode))."""
    place, mode = text, "ro"
    if text.endswith((":ro", ":rw")):
        place, mode = text[:-3], text[-2:]
    host, separator, guest = place.partition("::")
    if not host or (separator and not guest):
        raise OptionError(f"--dir {text}: it must be HOST or HOST::GUEST")
    name, colon, tail = guest.rpartition(":")
    if place == text and name and colon and "/" not in tail:
        raise OptionError(
            f"--dir {text}: {tail!r} must be ro or rw; if it is part of the name, one of them goes "
            "behind it"
        )
    return guest or host, (host, mode)


def _variable(text: str) -> list[tuple[str, str]]:
    """``NAME=VALUE``, or ``NAME`` for the process's own value; nothing where it has none."""
    name, equals, value = text.partition("=")
    if not name:
        raise OptionError(f"--env {text}: a variable needs a name")
    if equals:
        return [(name, value)]
    return [(name, os.environ[name])] if name in os.environ else []


def _sockets(options: Options) -> list[Socket]:
    """Those that were passed to this process, then those that are made here."""
    if "listenfd" not in options and not options.all("tcplisten"):
        return []
    from wali_core._sockets import address_of, inherited, listen

    found: list[Socket] = []
    if "listenfd" in options:
        found += inherited()
    for text in options.all("tcplisten"):
        try:
            host, port = address_of(text)
        except ValueError as error:
            raise OptionError(f"--tcplisten {error}") from None
        made = listen(host, port)
        found.append(made)
        if port == 0:  # the kernel's choice, which somebody must hear of
            host, port = made.getsockname()[:2]
            say(f"listening on {f'[{host}]' if ':' in host else host}:{port}", 0)
    return found


def _amount(option: str, text: str | None) -> float | None:
    """A duration in seconds, or a size in bytes, as policy files write them."""
    if text is None:
        return None
    from capabilities import parse_duration, parse_size

    try:
        return parse_duration(text) if option == "timeout" else parse_size(text)
    except ValueError as error:
        raise OptionError(f"--{option}: {error}") from None


def _tell_compiling(origin: str, size: int) -> None:
    if size > _SLOW_TO_COMPILE:
        say(f"compiling {origin} ({size / 1e6:.1f} MB), once", 0)


def _tell_fallback(reason: str) -> None:
    say(
        f"no view of its own for the program ({reason}): names and metadata of other files stay "
        "readable; calls that write metadata and unix sockets are refused",
        0,
    )


def _tell_missing(names: list[str]) -> None:
    say(f"these calls answer ENOSYS: {', '.join(names)}", 0)


def _stack() -> int:
    """How much of the main thread's stack a program may use: 2 MiB of the usual 8."""
    from resource import RLIMIT_STACK, getrlimit

    size = getrlimit(RLIMIT_STACK)[0]
    if 0 <= size < _LEAST_STACK:
        raise Refusal(
            f"the limit of this process's stack, {size} bytes, is too small to run a program: "
            f"ulimit -s {_LEAST_STACK // 1024} is the least",
            REFUSED,
        )
    return _LARGE_STACK if size < 0 else min(size // 4, _LARGE_STACK)


_LARGE_STACK: Final = 2 << 20
_LEAST_STACK: Final = 512 << 10


# --- wali policy ----------------------------------------------------------------------------------


def _policy(words: Sequence[str]) -> int:
    from wali_core import _policies

    commands = {"check": _policies.check, "show": _policies.show, "explain": _policies.explain}
    if words and words[0] in commands:
        return commands[words[0]](words[1:])
    if words and words[0] == "learn":
        options = parse(words[1:], _RUN_OPTIONS | {"out": VALUE})
        if "help" in options:
            return _help()
        return _policies.learn(
            options, lambda record: _reporting(lambda: _run_with(options, record))
        )
    raise OptionError("policy needs one of check, show, explain and learn")


# --- the rest -------------------------------------------------------------------------------------


def _inspect(words: Sequence[str]) -> int:
    if len(words) != 1:
        raise OptionError("inspect needs one FILE")
    require_file(words[0])
    default_interrupt()
    from wali_core import _abi
    from wali_core._runtime import Runtime

    module = _loaded(Runtime(), words[0])
    lines = [f"{words[0]}: {_abi.interface_of(module) or 'imports nothing'}\n"]
    lines += [
        f"  {item.module}.{item.name} ({item.parameters}) -> ({item.results})\n"
        for item in module.imports
    ]
    print_text("".join(lines))
    return 0


def _help() -> int:
    print_text(USAGE)
    return 0


def _version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "(not installed)"

    print_text(f"wali {of('wasi-on-wali')} (wasmtime {of('wasmtime')})\n")
    return 0
