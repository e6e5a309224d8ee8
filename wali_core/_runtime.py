"""A runtime: the engine, the cache and the policy that guests share."""

from __future__ import annotations

import os
import time
from _thread import allocate_lock
from functools import partial

from wali_core import _abi, _bridge
from wali_core._cache import Cache
from wali_core._ending import Ending
from wali_core._engine import DEFAULT_STACK, Engine, Module, sniff
from wali_core._errors import GuestExit, GuestTimeout, ModuleError, PolicyError, UseError
from wali_core._grants import Grants, encoded, load_policy, refuse_nested
from wali_core._guest import Guest
from wali_core._link import ShimLink, composed
from wali_core._monitor import Postponed
from wali_core._passes import (
    PROCESS,
    SHARED,
    NoProgram,
    may_be_program,
    prepare_guest,
    prepare_if_program,
)
from wali_core._stdio import Given, Streams, own_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final, Self

    from capabilities import Policy
    from wali_core._audit import Audit
    from wali_core._follow import Record
    from wali_core._grants import Dirs, Preopen
    from wali_core._guest import AnyGuest
    from wali_core._link import Hook, ProgramLink
    from wali_core._result import CompletedGuest
    from wali_core._sockets import Socket
    from wali_core._statistics import RuntimeStatistics
    from wali_core._stdio import Input, Limits, Output
    from wali_core.processes._process import Launcher, Running
    from wali_core.programs._executables import Executables
    from wali_core.programs._program import AnyProgram, Program
    from wali_core.programs._suspending import SuspendingLink
    from wali_core.tasks._cooperative import CooperativeGuest
    from wali_core.tasks._flow import TaskInput, TaskOutput
    from wali_core.tasks._tasks import Opening

    ModuleSource = str | os.PathLike[str] | bytes | Module

_ISOLATIONS: Final = (PROCESS, SHARED)

_FIRST_GRANTED: Final = 3  # the number of a guest's first descriptor after its streams
_LOADED: Final = 64  # modules that a runtime keeps at hand
_ENOUGH: Final = 4096  # bytes that show what a file is


class Runtime:
    """What guests have in common.  May be shared between threads; guests may not.

    ``policy`` is a ``capabilities.Policy`` or the path of a policy file; without one nothing is
    granted but what each guest is given by its caller.  ``allow_all`` grants the whole file system,
    the working directory and the environment.  ``cache`` is the folder for compiled modules, True
    for the user's own, False for none.  ``stack`` is how much of its thread's stack a guest may
    use, in bytes.

    ``pool`` is a number of guests, for whose memories and stacks room is laid out beforehand: for
    thousands of them at a time, which start faster then, take less memory, and would else run out
    of mappings.  There can be no more than that, and none with a table of over 20,000 elements.

    A context manager.  Close its guests first.
    """

    def __init__(
        self,
        *,
        policy: Policy | str | os.PathLike[str] | None = None,
        allow_all: bool = False,
        cache: bool | str | os.PathLike[str] = True,
        core: _bridge.Core | None = None,
        on_compile: Callable[[str, int], None] | None = None,
        on_missing: Callable[[list[str]], None] | None = None,
        on_fallback: Callable[[str], None] | None = None,
        parallel: bool = True,
        stack: int = DEFAULT_STACK,
        pool: int | None = None,
        record: Record | None = None,
    ) -> None:
        own_streams()  # before anything is opened
        self._policy = load_policy(policy)
        self._allow_all = allow_all
        self._cache = None if cache is False else Cache(None if cache is True else os.fspath(cache))
        self.engine = Engine(core or _bridge.core, stack, parallel=parallel, pool=pool)
        self._on_compile = on_compile
        self._on_missing = on_missing
        self._on_fallback = on_fallback
        self._record = record
        self._lock, self._making = allocate_lock(), allocate_lock()
        self._modules: dict[tuple[str, str], Module] = {}
        self._compiling: dict[tuple[str, str], LockType] = {}
        self._links: dict[str, tuple[_abi.Shim, ShimLink]] = {}
        self._cooperative_links: dict[str, tuple[_abi.Shim, ShimLink]] = {}
        self._suspending: SuspendingLink | None = None
        self._launcher: Launcher | None = None
        self._executables: Executables | None = None
        self._closed = False

    # --- modules ----------------------------------------------------------------------------------

    def load(self, module: ModuleSource, *, isolation: str = PROCESS) -> Module:
        """Compile a module, or take it from the cache: a path, or the bytes of a ``.wasm`` file.

        A WALI program is prepared for the ``isolation`` that it will run in (see ``run_sync``).
        Raises ``ModuleError`` for what is not a module that this library runs,
        ``FileNotFoundError`` and other ``OSError`` for a file that cannot be read.
        """
        self._usable()
        if isolation not in _ISOLATIONS:
            raise PolicyError(f"isolation: {isolation!r}: it must be {PROCESS!r} or {SHARED!r}")
        if isinstance(module, Module):
            self._refuse_unfit(module, isolation)
            return module
        data, origin = _read(module)
        # With the name: it is what errors say, and what the program finds as its own.
        preparation = isolation if may_be_program(data) else "guest"
        key = self.engine.key(data, preparation), origin
        with self._lock:
            loaded = self._modules.get(key)
            if loaded is not None:
                return loaded
            turn = self._compiling.setdefault(key, allocate_lock())
        with turn:  # whoever asks for it meanwhile gets what this one has compiled
            with self._lock:
                loaded = self._modules.get(key)
            if loaded is None:
                loaded = self._compile_prepared(data, origin, isolation)
            with self._lock:
                self._compiling.pop(key, None)
                while len(self._modules) >= _LOADED:
                    del self._modules[next(iter(self._modules))]
                self._modules[key] = loaded
        return loaded

    def _compile_prepared(self, data: bytes, origin: str, isolation: str) -> Module:
        if may_be_program(data):
            try:
                prepare = partial(prepare_if_program, origin=origin, isolation=isolation)
                return self._compile(data, origin, isolation, prepare)
            except NoProgram:
                pass
        return self._compile(data, origin, "guest", partial(prepare_guest, origin=origin))

    def _refuse_unfit(self, module: Module, isolation: str) -> None:
        if module.engine not in (self.engine, self.engine.polling()):
            raise UseError("the module was loaded by another runtime: load it with this one")
        if _abi.interface_of(module) == _abi.WALI and module.preparation != isolation:
            raise UseError(
                f"{module.origin}: was loaded for isolation={module.preparation!r}: "
                f"load it with isolation={isolation!r}"
            )

    def _compile(
        self,
        data: bytes,
        origin: str,
        preparation: str = "",
        prepare: Callable[[bytes], bytes] | None = None,
    ) -> Module:
        tell = self._on_compile
        engine = self.engine.polling() if preparation == PROCESS else self.engine
        return engine.compile(
            data,
            origin,
            self._cache,
            preparation=preparation,
            prepare=prepare,
            on_compile=None if tell is None else lambda size: tell(origin, size),
        )

    def _shim(self, interface: str, *, cooperative: bool = False) -> tuple[_abi.Shim, ShimLink]:
        links = self._cooperative_links if cooperative else self._links
        with self._lock:
            found = links.get(interface)
        if found is None:
            with self._making:  # once, whoever else needs it meanwhile
                found = links.get(interface) or self._made(interface, cooperative=cooperative)
        assert found is not None
        return found

    def _made(
        self, interface: str, *, cooperative: bool, compiles: bool = True
    ) -> tuple[_abi.Shim, ShimLink] | None:
        """Make it; None where that takes a compilation, and ``compiles`` is not set."""
        links = self._cooperative_links if cooperative else self._links
        shim = _abi.shim_for(interface)
        path = shim.path()
        with open(path, "rb") as file:
            data = file.read()
        if compiles:
            module: Module | None = self._compile(data, path)
        else:
            module = self.engine.cached(data, path, self._cache) if self._cache else None
        if module is None:
            return None
        made = shim, ShimLink(module, cooperative=cooperative)
        with self._lock:
            if not self._closed:
                links.update(dict.fromkeys(shim.modules, made))
        return made

    async def _have_shim(self, interface: str) -> None:
        """Compile what tasks of this kind need, on a thread: it takes a tenth of a second."""
        if interface in self._cooperative_links:
            return
        import trio

        from wali_core.tasks._reactor import compiling

        async with compiling():  # the others of this run wait without a thread
            if interface in self._cooperative_links:
                return
            if self._made(interface, cooperative=True, compiles=False) is None:
                make = partial(self._shim, interface, cooperative=True)
                await trio.to_thread.run_sync(make, abandon_on_cancel=True)

    def _suspending_link(self) -> SuspendingLink:
        """What WALI programs that are tasks wait by, made for the first of them."""
        from wali_core.programs._suspending import SuspendingLink, suspending_calls

        found = self._suspending
        if found is None:
            calls = suspending_calls(self.engine.core)
            found = SuspendingLink(self._compile(calls, "<calls that can wait>"), cooperative=True)
            if not self._closed:
                self._suspending = found
        return found

    # --- guests -----------------------------------------------------------------------------------

    def instantiate(
        self,
        module: ModuleSource,
        *,
        args: Sequence[str | bytes] = (),
        argv0: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        dirs: Dirs | None = None,
        sockets: Sequence[Socket] = (),
        stdio: Sequence[int] = (0, 1, 2),
        strict_rights: bool = False,
        isolation: str = PROCESS,
    ) -> Guest:
        """A guest of this runtime, ready to be called.

        ``args`` follow ``argv0`` (the module's name, if not given).  ``env`` and ``dirs`` are
        granted on top of the policy; ``dirs`` is ``{guest: host}``, read-only, or ``{guest: (host,
        "ro" | "rw")}``.  ``sockets`` are socket objects, or descriptors of such: a WASI guest finds
        them after its directories, and they are set to non-blocking.  ``stdio`` are three
        descriptors of this process, -1 for none; they stay the caller's, who closes them after the
        guest: of one that is closed before, the guest has whatever is opened in its place.

        With ``strict_rights`` a WASI guest has, of what it opens, the rights that it asked for and
        no others; by default only those to read and to write are a matter of asking.

        The start function of the module, and the ``_initialize`` that a library may export, run
        here and with all that the guest is given.  Raises ``ModuleError``, ``PolicyError``, and
        what those two raise.
        """
        loaded = self.load(module, isolation=isolation)
        grants = self.grants(env, dirs, sockets, strict_rights=strict_rights)
        if _abi.interface_of(loaded) != _abi.WALI:
            return self._instantiate(loaded, grants, args, argv0, Given(stdio))
        if isolation != SHARED:
            raise _needs_process(loaded, "run_sync")
        return self._start_program(loaded, grants, args, argv0, Given(stdio), isolation)

    def _instantiate(
        self,
        module: Module,
        grants: Grants,
        args: Sequence[str | bytes],
        argv0: str | bytes | None,
        streams: Given | Streams,
        *,
        own_process: bool = False,
    ) -> Guest:
        guest = Guest(self.engine, module)
        try:
            shim = self._equip(guest, module, grants, args, argv0, streams)
            if own_process and not self._allow_all:
                from wali_core._confine import enclose

                guest.link(shim)
                enclose(self._policy, guest.opened, self.engine.core).commit()
            guest.start(shim)
        except BaseException:
            guest.close()
            raise
        return guest

    def _equip(
        self,
        guest: AnyGuest,
        module: Module,
        grants: Grants,
        args: Sequence[str | bytes],
        argv0: str | bytes | None,
        streams: Given | Streams,
    ) -> _abi.Shim | None:
        """Give a new guest all that it has, but for its own instance.  The shim that it got."""
        interface = _abi.interface_of(module)
        argv, environ = _command_line(module, grants, args, argv0)
        guest.limit_files(grants.open_files)
        guest.limit_computing(grants.cpu_time, whole_run=grants.whole_run)
        guest.open_store()
        shim = None
        if interface is not None:
            shim, link = self._shim(interface, cooperative=guest.cooperative)
            hooks = guest.meter_output(grants.output, grants.to_meter(streams.host))
            if hooks:
                link = ShimLink(link.module, hooks=hooks, cooperative=guest.cooperative)
            guest.place_stdio(streams.host)
            directories = grants.directories(self._policy)
            audit = self._audit(directories)
            if audit is not None:
                guest.write_down(audit, directories, _FIRST_GRANTED)
                audit.prepare(module.origin)
            preopens = guest.place_preopens(directories, _FIRST_GRANTED)
            guest.place_sockets(grants.sockets, _FIRST_GRANTED + len(preopens))
            configuration = shim.configuration(
                argv, environ, preopens, guest.datagrams(), **grants.for_shim()
            )
            guest.start_shim(link, configuration)
        guest.limit_memory(grants.memory)
        guest.limit_time(grants.wall_time, grants.deadline)
        guest.watch_output(streams.captures)
        return shim

    def open(
        self,
        module: ModuleSource,
        *,
        args: Sequence[str | bytes] = (),
        argv0: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        dirs: Dirs | None = None,
        sockets: Sequence[Socket] = (),
        stdio: Sequence[int] = (0, 1, 2),
        strict_rights: bool = False,
        isolation: str = PROCESS,
    ) -> Opening:
        """A guest whose calls are awaited, under trio: ``async with runtime.open(...) as guest``.

        Many such guests share a thread: one that waits in a call, or computes, lets others run.
        Leaving the block closes the guest.  The arguments are those of ``instantiate``, and so is
        what is raised, where the block is entered.
        """
        from wali_core.tasks._tasks import Opening

        async def make() -> CooperativeGuest:
            loaded = await self._load(module, isolation)
            grants = self.grants(env, dirs, sockets, strict_rights=strict_rights)
            if _abi.interface_of(loaded) == _abi.WALI and isolation != SHARED:
                raise _needs_process(loaded, "run")
            return await self._open(loaded, grants, args, argv0, Given(stdio))

        return Opening(make)

    def _load_within(
        self, bound: tuple[float, float] | None, module: ModuleSource, isolation: str
    ) -> Module:
        """As ``load``, until then (monotonic): compiling takes its time, and is not interrupted."""
        load = partial(self.load, module, isolation=isolation)
        if isinstance(module, Module):
            return load()
        from wali_core._patience import within

        return within(bound, load)

    async def _load(
        self, module: ModuleSource, isolation: str, bound: tuple[float, float] | None = None
    ) -> Module:
        """The same for a task, by trio's clock."""
        if isinstance(module, Module):
            return self.load(module, isolation=isolation)
        import trio

        load = partial(self.load, module, isolation=isolation)
        with trio.CancelScope() as scope:
            if bound is not None:
                scope.deadline = bound[0]
            return await trio.to_thread.run_sync(load, abandon_on_cancel=True)
        assert bound is not None
        raise GuestTimeout(bound[1])

    async def _open(
        self,
        module: Module,
        grants: Grants,
        args: Sequence[str | bytes],
        argv0: str | bytes | None,
        streams: Given | Streams,
    ) -> CooperativeGuest:
        from wali_core.tasks._cooperative import CooperativeGuest

        interface = _abi.interface_of(module)
        if interface == _abi.WALI:
            return await self._open_program(module, grants, args, argv0, streams)
        if interface is not None:
            await self._have_shim(interface)
        guest = CooperativeGuest(self.engine, module)
        try:
            await guest.start(self._equip(guest, module, grants, args, argv0, streams))
        except BaseException:
            guest.close()
            raise
        return guest

    async def _open_program(
        self,
        module: Module,
        grants: Grants,
        args: Sequence[str | bytes],
        argv0: str | bytes | None,
        streams: Given | Streams,
    ) -> CooperativeGuest:
        """A trusted WALI program, in this process."""
        from wali_core.programs._task_program import CooperativeProgram

        program = CooperativeProgram(self.engine, module, self._suspending_link())
        try:
            link = self._equip_program(program, module, grants, args, argv0, streams, SHARED)
            await program.start_program(link)
        except BaseException:
            program.close()
            raise
        return program

    def executables(self, *, compiling: bool) -> Executables:
        """What this runtime's programs execute, made for the first of them."""
        from wali_core.programs._executables import Executables

        with self._lock:
            if self._executables is None:
                self._executables = Executables(self.engine.polling(), self._cache)
                if self._policy is not None and not self._allow_all:
                    granted = (grant.host for grant in self._policy.filesystem.exec)
                    self._executables.make_ready(granted, compiling=compiling)
            return self._executables

    def _start_program(
        self,
        module: Module,
        grants: Grants,
        args: Sequence[str | bytes],
        argv0: str | bytes | None,
        streams: Given | Streams,
        isolation: str,
    ) -> Program:
        """A WALI program in this process, which is its own or, if it is trusted, shared."""
        from wali_core.programs._program import Program

        program = Program(module.engine, module, own_process=isolation == PROCESS)
        try:
            link = self._equip_program(program, module, grants, args, argv0, streams, isolation)
            program.start_program(link)
        except BaseException:
            program.close()
            raise
        return program

    def _equip_program(
        self,
        program: AnyProgram,
        module: Module,
        grants: Grants,
        args: Sequence[str | bytes],
        argv0: str | bytes | None,
        streams: Given | Streams,
        isolation: str,
    ) -> ProgramLink:
        """Give a new program all that it has, and confine what is to be.  Nothing of it has run."""
        from wali_core._confine import confine, keep_streams, refuse_directories, unconfined
        from wali_core.programs._calls import environment_text

        _refuse_wasi_only(module, grants)
        catalogue = self.engine.core.catalogue()
        audit = self._audit(tuple(grants.preopens.values()), catalogue)
        argv, environ = _command_line(module, grants, args, argv0)
        environment = environment_text(environ)
        kept: dict[str, Hook] = {}
        # While there is a cache.
        executables = self.executables(compiling=True) if isolation == PROCESS else None
        if self._allow_all or isolation == SHARED:
            confinement = unconfined()
        else:
            refuse_directories(streams.host)
            kept = keep_streams(streams.host, program.host_of)
            confinement = confine(
                self._policy,
                grants,
                self.engine.core,
                environment=environment,
                on_fallback=self._on_fallback,
            )
        program.limit_files(grants.open_files)
        program.limit_computing(grants.cpu_time, whole_run=grants.whole_run)
        program.limit_processes(grants.processes)
        program.limit_threads(grants.threads)
        hooks = composed(
            program.serve_environment(confinement.environment),
            program.watch_calls(audit, confinement.gate, ends=self._ends_by_denial),
            program.meter_output(grants.output, grants.to_meter(streams.host)),
            kept,
            program.tell_withheld(confinement.withheld),
            program.waiting(),
        )
        if audit is not None:
            audit.prepare(module.origin)
        program.open_store()
        program.place_stdio(streams.host)
        if executables is not None:
            executables.begin(confined=not self._allow_all)
            leave = None if self._record is None else self._record.hand_over
            program.let_execute(executables.load, confinement.programs, leave)
        confined = not self._allow_all
        program.let(confinement.network, confinement.procfs, confined=confined)
        program.set_arguments(argv, environment, confinement.place)
        link = program.resolve(confinement.gate, grants.memory, hooks)
        if self._on_missing and link.missing:
            self._on_missing(link.missing)
        program.limit_time(grants.wall_time, grants.deadline)
        program.watch_output(streams.captures)
        confinement.commit()
        if audit is not None:
            audit.start()
        return link

    @property
    def _ends_by_denial(self) -> bool:
        return self._policy is not None and self._policy.syscalls.on_deny == "kill"

    def _audit(
        self, directories: Sequence[Preopen], catalogue: Mapping[str, str] | None = None
    ) -> Audit | None:
        """Where what a guest asks for is written down, if it is.  Raises ``PolicyError``."""
        wanted = self._policy.audit if self._policy is not None else None
        if self._record is None and (wanted is None or wanted.log == "none"):
            return None
        from wali_core._audit import audit

        if catalogue is not None:
            import capabilities
            from wali_core._confine import binds_of
            from wali_core._grants import Preopen

            places = binds_of(self._policy or capabilities.Policy.none(), directories)[0]
            directories = [Preopen(p.guest, p.host, read_only=not p.writable) for p in places]
        record = None if self._record is None else self._record.file
        return audit(self._policy, directories, catalogue, record=record)

    def grants(
        self,
        env: Mapping[str, str] | None = None,
        dirs: Dirs | None = None,
        sockets: Sequence[Socket] = (),
        *,
        wall_time: float | None = None,
        memory: int | None = None,
        strict_rights: bool = False,
    ) -> Grants:
        """The policy's grants with the caller's on top; limits only narrow."""
        grants = Grants()
        if self._allow_all:
            grants.add_everything()
        if self._policy is not None:
            grants.add_policy(self._policy)
        grants.add_dirs(dirs or {})
        if not self._allow_all:
            refuse_nested(grants.preopens.values())
        grants.add_env(env or {})
        grants.sockets = tuple(sockets)
        grants.strict_rights = strict_rights
        grants.narrow(wall_time, memory)
        if self._policy is not None:
            grants.refuse_denied(self._policy)
            grants.refuse_moved(self._policy)
        return grants

    # --- whole programs ---------------------------------------------------------------------------

    def run_sync(
        self,
        module: ModuleSource,
        *,
        args: Sequence[str | bytes] = (),
        argv0: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        dirs: Dirs | None = None,
        sockets: Sequence[Socket] = (),
        stdin: Input = None,
        stdout: Output = None,
        stderr: Output = None,
        capture_output: bool = False,
        output_limit: Limits = None,
        timeout: float | None = None,
        memory: int | None = None,
        strict_rights: bool = False,
        isolation: str = PROCESS,
    ) -> CompletedGuest:
        """Run a program (a module with ``_start``) to its end.

        A WASI program runs in this thread.  A WALI program gets a process of its own, confined by
        the policy; ``isolation="shared"`` runs a *trusted* one in this thread instead, held by
        limits alone, and without protections, fork, exec, signals and threads.

        ``stdin`` is bytes, a descriptor, an open file, an iterable of bytes,
        ``subprocess.DEVNULL`` or None, which inherits.  ``stdout`` and ``stderr`` are a descriptor,
        an open file, a callable that gets what is written in pieces, ``PIPE`` and ``DEVNULL`` of
        ``subprocess`` (``stderr`` also its ``STDOUT``) or None.  ``capture_output`` is ``PIPE`` for
        both.  Iterators and callables are used on threads of their own; what they raise ends the
        guest and is raised here.  ``output_limit`` is a number of bytes for each of the two, or a
        pair; if not given, 64 MiB where output is captured.  A guest that writes more is ended
        (``GuestError``).

        ``timeout`` is in seconds, from now on, also for a guest that waits in a call; ``memory`` is
        in bytes.  Both only narrow what the policy says.  ``strict_rights`` is as for
        ``instantiate``.

        An exit status is a result, not an exception.  Raises ``ModuleError``, ``PolicyError``,
        ``GuestTrap``, ``GuestTimeout`` and, at Ctrl-C, ``KeyboardInterrupt``; a ``GuestError``
        carries what was captured until then.
        """
        started = time.monotonic()
        with Postponed():  # Ctrl-C comes when nothing is half made, or half closed
            grants = self.grants(
                env, dirs, sockets, wall_time=timeout, memory=memory, strict_rights=strict_rights
            )
            grants.count_from(started)
            try:
                loaded = self._load_within(grants.bound, module, isolation)
            except GuestTimeout as error:
                from wali_core._result import unstarted

                unstarted(error, stdout, stderr, capture=capture_output)
                raise
            streams = Streams(
                *(stdin, stdout, stderr),
                capture=capture_output,
                limit=output_limit,
                most=grants.output,
                bound=grants.bound,
            )
            try:
                return self._run_sync(loaded, grants, args, argv0, streams, isolation)
            finally:
                streams.close()

    def _run_sync(
        self,
        module: Module,
        grants: Grants,
        args: Sequence[str | bytes],
        argv0: str | bytes | None,
        streams: Streams,
        isolation: str,
    ) -> CompletedGuest:
        from wali_core._result import completed

        grants.metered = tuple(streams.passed_on)
        made = module, grants, args, argv0, streams
        run = partial(self.execute, *made, isolation)
        if isolation == PROCESS and _abi.interface_of(module) == _abi.WALI:
            from wali_core.processes._process import run_program

            run = partial(run_program, self._in_process(*made), streams)
        return completed(run, module.origin, args, streams)

    async def run(
        self,
        module: ModuleSource,
        *,
        args: Sequence[str | bytes] = (),
        argv0: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        dirs: Dirs | None = None,
        sockets: Sequence[Socket] = (),
        stdin: TaskInput = None,
        stdout: TaskOutput = None,
        stderr: TaskOutput = None,
        capture_output: bool = False,
        output_limit: Limits = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as of run_sync, with a result of its own
        memory: int | None = None,
        strict_rights: bool = False,
        isolation: str = PROCESS,
    ) -> CompletedGuest:
        """Run a program to its end as a task of trio, beside others.

        The arguments, the result and what is raised are those of ``run_sync``.  Guests of this
        thread take turns: one that waits in a call lets the others run, one that computes does so
        every few milliseconds.  Cancelling ends the guest wherever it is, and frees what it has.

        ``stdin`` may also be a ``trio.abc.ReceiveStream`` or an asynchronous iterator; ``stdout``
        and ``stderr`` a ``trio.abc.SendStream`` or an asynchronous function.  Iterators and
        functions are used in this thread.  A guest whose ``SendStream`` is broken finds its pipe
        so.  Streams stay the caller's, who closes them.
        """
        import trio

        from wali_core.tasks._flow import TaskStreams
        from wali_core.tasks._tasks import completed, run_guest, run_process

        @trio.lowlevel.enable_ki_protection  # so that nothing is half made, or half closed
        async def run() -> CompletedGuest:
            started = trio.current_time()
            grants = self.grants(
                env, dirs, sockets, wall_time=timeout, memory=memory, strict_rights=strict_rights
            )
            grants.count_from(started)
            try:
                loaded = await self._load(module, isolation, grants.bound)
            except GuestTimeout as error:
                from wali_core._result import unstarted

                unstarted(error, stdout, stderr, capture=capture_output)
                raise
            in_child = isolation == PROCESS and _abi.interface_of(loaded) == _abi.WALI
            if not in_child:
                _refuse_library(loaded)
            streams = TaskStreams(
                *(stdin, stdout, stderr),
                capture=capture_output,
                limit=output_limit,
                most=grants.output,
                bound=grants.bound,
            )
            grants.metered = tuple(streams.passed_on)
            try:
                made = loaded, grants, args, argv0, streams
                if in_child:
                    execute = partial(run_process, self._in_process(*made))
                else:
                    execute = partial(run_guest, partial(self._open, *made))
                return await completed(execute, loaded.origin, args, streams)
            finally:
                streams.close()

        return await run()

    def _in_process(
        self,
        module: Module,
        grants: Grants,
        args: Sequence[str | bytes],
        argv0: str | bytes | None,
        streams: Streams,
    ) -> Callable[[], Running]:
        """What starts a WALI program in a process of its own."""
        from wali_core.processes._process import Running

        _refuse_wasi_only(module, grants)
        argv, _ = _command_line(module, grants, args, argv0)
        self.executables(compiling=True)  # for the launcher, which never compiles
        return partial(Running, self._launch(), module, argv, grants, streams)

    def execute(
        self,
        module: Module,
        grants: Grants,
        args: Sequence[str | bytes],
        argv0: str | bytes | None,
        streams: Streams,
        isolation: str = PROCESS,
        use: Callable[[Guest], None] | None = None,
        *,
        own_process: bool = False,
    ) -> Ending:
        """Run a program in this process.

        ``use`` is what to do with the guest instead of calling ``_start``.  ``own_process`` says
        that the process is there for nothing else: it is confined with a WASI guest, too.
        """
        start: Callable[..., Guest] = partial(self._instantiate, own_process=own_process)
        if _abi.interface_of(module) == _abi.WALI:
            if use is not None:
                raise ModuleError(
                    f"{module.origin}: a WALI program, of which only _start can be called"
                )
            start = partial(self._start_program, isolation=isolation)
        if use is None:
            _refuse_library(module)
        try:
            guest = start(module, grants, args, argv0, streams)
        except GuestExit as end:  # in the module's start function
            return Ending(end.status)
        with guest:
            guest.raise_end()
            if grants.deadline is not None and time.monotonic() >= grants.deadline:
                raise GuestTimeout(grants.wall_time or 0.0)
            status = 0
            try:
                guest.call("_start") if use is None else use(guest)
            except GuestExit as end:
                status = end.status
            return Ending(status, write_refused=guest.write_refused)

    def _launch(self) -> Launcher:
        """What starts WALI programs, made for the first of them."""
        from wali_core.processes._order import Setting
        from wali_core.processes._process import Launcher

        setting = Setting(
            self._policy,
            allow_all=self._allow_all,
            cache=None if self._cache is None else self._cache.folder,
        )
        with self._lock:
            launcher = self._launcher or Launcher(setting)
            if not self._closed:  # else it is for the one that another thread is just starting
                self._launcher = launcher
            return launcher

    def statistics(self) -> RuntimeStatistics:
        """What the guests have done that share this process; programs in others are not counted."""
        from wali_core._statistics import RuntimeStatistics

        numbers: Any = self.engine.totals.numbers()
        return RuntimeStatistics(*numbers)

    # --- its end ----------------------------------------------------------------------------------

    def _usable(self) -> None:
        if self._closed:
            raise UseError("the runtime is closed")

    def close(self) -> None:
        """Forget the modules and the engine.  Guests that are still open keep what they need.

        So does one that another thread is just making: what is forgotten here goes with its last
        user.
        """
        self._closed = True
        with self._lock:
            self._links.clear()
            self._cooperative_links.clear()
            self._modules.clear()
            self._suspending = None
            launcher, self._launcher = self._launcher, None
        if launcher is not None:
            launcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _needs_process(module: Module, way: str) -> ModuleError:
    return ModuleError(
        f"{module.origin}: a WALI program, which has a process of its own: use {way}, "
        f"or isolation={SHARED!r} if you trust it with this one"
    )


def _refuse_library(module: Module) -> None:
    if not module.is_program:
        way = "use instantiate and call, or wali run --invoke"
        if _abi.interface_of(module) == _abi.WALI:
            way = f"use instantiate and call, with isolation={SHARED!r}, if you trust it"
        raise ModuleError(
            f"{module.origin}: no _start without parameters: a library, not a program; {way}"
        )


def _refuse_wasi_only(module: Module, grants: Grants) -> None:
    if grants.sockets:
        raise PolicyError(
            f"{module.origin}: a WALI program, which makes its sockets itself: only WASI programs "
            "are given some"
        )
    if grants.strict_rights:
        raise PolicyError(
            f"{module.origin}: a WALI program, whose descriptors have no rights: strict rights are "
            "for WASI programs"
        )
    for key, given in (("clock", grants.clock), ("random", grants.seed)):
        if given is not None:
            raise PolicyError(
                f"{module.origin}: a WALI program, which has the host's: {key}.source is for WASI "
                "programs"
            )


def _command_line(
    module: Module, grants: Grants, args: Sequence[str | bytes], argv0: str | bytes | None
) -> tuple[list[bytes], list[bytes]]:
    """What a program is told: its arguments, its name first, and its environment."""
    if isinstance(args, (str, bytes)):
        raise TypeError(f"args: {args!r} is one string: give a list of them")
    argv = encoded((argv0 if argv0 is not None else module.origin, *args), "argument")
    pairs = (f"{name}={value}" for name, value in grants.env.items())
    return argv, encoded(pairs, "environment variable")


def _read(module: str | os.PathLike[str] | bytes) -> tuple[bytes, str]:
    if isinstance(module, bytes):
        return module, "<module>"
    path = os.fspath(module)
    with open(path, "rb") as file:
        start = file.read(_ENOUGH)
        sniff(start, path)  # before all is read: a device has no end
        return start + file.read(), path
