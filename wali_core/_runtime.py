"""A runtime: the engine, the cache and the policy that guests share."""

from __future__ import annotations

import os
import time
from _thread import allocate_lock
from functools import partial

from wali_core import _bridge
from wali_core._cache import Cache
from wali_core._ending import Ending
from wali_core._engine import DEFAULT_STACK, Engine
from wali_core._errors import GuestExit, GuestTimeout, ModuleError, UseError
from wali_core._grants import Grants, load_policy
from wali_core._guest import Guest
from wali_core._link import ShimLink, composed
from wali_core._modules import Modules
from wali_core._monitor import Postponed
from wali_core._passes import PROCESS
from wali_core._plan import Plan
from wali_core._stdio import Given, Streams, own_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final, Self

    from capabilities import Policy
    from wali_core import _abi
    from wali_core._audit import Audit
    from wali_core._engine import Module
    from wali_core._follow import Record
    from wali_core._grants import Dirs, Preopen
    from wali_core._guest import AnyGuest
    from wali_core._link import Hook, ProgramLink
    from wali_core._modules import ModuleSource
    from wali_core._result import CompletedGuest
    from wali_core._sockets import Socket
    from wali_core._statistics import RuntimeStatistics
    from wali_core._stdio import Input, Limits, Output
    from wali_core.processes._process import Launcher, Running
    from wali_core.programs._executables import Executables
    from wali_core.programs._program import AnyProgram, Program
    from wali_core.tasks._cooperative import CooperativeGuest
    from wali_core.tasks._flow import TaskInput, TaskOutput
    from wali_core.tasks._tasks import Opening

_FIRST_GRANTED: Final = 3  # the number of a guest's first descriptor after its streams


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
        self._modules = Modules(self.engine, self._cache, on_compile)
        self._on_missing = on_missing
        self._on_fallback = on_fallback
        self._record = record
        self._lock = allocate_lock()
        self._launcher: Launcher | None = None
        self._closed = False

    def load(self, module: ModuleSource, *, isolation: str = PROCESS) -> Module:
        """Compile a module, or take it from the cache: a path, or the bytes of a ``.wasm`` file.

        A WALI program is prepared for the ``isolation`` that it will run in (see ``run_sync``).
        Raises ``ModuleError`` for what is not a module that this library runs,
        ``FileNotFoundError`` and other ``OSError`` for a file that cannot be read.
        """
        self._usable()
        return self._modules.load(module, isolation)

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
        them after its directories; those that listen are set to non-blocking.  ``stdio`` are three
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
        plan = Plan(loaded, grants, Given(stdio), args=args, argv0=argv0, isolation=isolation)
        plan.refuse_process("run_sync")
        return self.start(plan)

    def start(self, plan: Plan, *, own_process: bool = False) -> Guest:
        """The guest that was planned, in this process, ready to be called.

        ``own_process`` says that the process is there for nothing else: it is confined with a WASI
        guest, too.  Raises as ``instantiate``.
        """
        if plan.is_wali:
            return self._start_program(plan)
        guest = Guest(self.engine, plan.module)
        try:
            shim = self._equip(guest, plan)
            if own_process and not self._allow_all:
                from wali_core._confine import enclose

                guest.link(shim)
                enclose(self._policy, guest.opened, self.engine.core).commit()
            guest.start(shim)
        except BaseException:
            guest.close()
            raise
        return guest

    def _equip(self, guest: AnyGuest, plan: Plan) -> _abi.Shim | None:
        """Give a new guest all that it has, but for its own instance.  The shim that it got."""
        interface, grants, streams = plan.interface, plan.grants, plan.streams
        argv, environ = plan.command_line()
        guest.limit_files(grants.open_files)
        guest.limit_computing(grants.cpu_time, whole_run=grants.whole_run)
        guest.open_store()
        shim = None
        if interface is not None:
            shim, link = self._modules.shim(interface, cooperative=guest.cooperative)
            hooks = guest.meter_output(grants.output, grants.to_meter(streams.host))
            if hooks:
                link = ShimLink(link.module, hooks=hooks, cooperative=guest.cooperative)
            guest.place_stdio(streams.host)
            directories = grants.directories(self._policy)
            audit = self._audit(grants, directories)
            if audit is not None:
                guest.write_down(audit, directories, _FIRST_GRANTED)
                audit.prepare(plan.module.origin)
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
            self._usable()
            loaded = await self._modules.load_as_task(None, module, isolation)
            grants = self.grants(env, dirs, sockets, strict_rights=strict_rights)
            plan = Plan(loaded, grants, Given(stdio), args=args, argv0=argv0, isolation=isolation)
            plan.refuse_process("run")
            return await self._open(plan)

        return Opening(make)

    async def _open(self, plan: Plan) -> CooperativeGuest:
        """As ``start``, as a task."""
        from wali_core.tasks._cooperative import CooperativeGuest

        if plan.is_wali:
            return await self._open_program(plan)
        if plan.interface is not None:
            await self._modules.have_shim(plan.interface)
        guest = CooperativeGuest(self.engine, plan.module)
        try:
            await guest.start(self._equip(guest, plan))
        except BaseException:
            guest.close()
            raise
        return guest

    # --- WALI programs ----------------------------------------------------------------------------

    def executables(self, *, compiling: bool) -> Executables:
        """What this runtime's programs execute, made for the first of them."""
        policy = None if self._allow_all else self._policy
        granted = () if policy is None else policy.filesystem.exec
        return self._modules.executables((one.host for one in granted), compiling=compiling)

    def _start_program(self, plan: Plan) -> Program:
        """A WALI program in this process, which is its own or, if it is trusted, shared."""
        from wali_core.programs._program import Program

        program = Program(plan.module.engine, plan.module, own_process=plan.has_process)
        try:
            program.start_program(self._equip_program(program, plan))
        except BaseException:
            program.close()
            raise
        return program

    async def _open_program(self, plan: Plan) -> CooperativeGuest:
        """A trusted WALI program, in this process."""
        from wali_core.programs._task_program import CooperativeProgram

        program = CooperativeProgram(self.engine, plan.module, self._modules.suspending_link())
        try:
            await program.start_program(self._equip_program(program, plan))
        except BaseException:
            program.close()
            raise
        return program

    def _equip_program(self, program: AnyProgram, plan: Plan) -> ProgramLink:
        """Give a new program all that it has, and confine what is to be.  Nothing of it has run."""
        from wali_core._confine import confine, keep_streams, refuse_directories, unconfined
        from wali_core.programs._calls import environment_text

        plan.refuse_wasi_only()
        module, grants, streams = plan.module, plan.grants, plan.streams
        catalogue = self.engine.core.catalogue()
        grants.settle(self._policy, everything=self._allow_all)
        audit = self._audit(grants, None, catalogue)
        argv, environ = plan.command_line()
        environment = environment_text(environ)
        kept: dict[str, Hook] = {}
        # While there is a cache.
        executables = self.executables(compiling=True) if plan.has_process else None
        if self._allow_all or not plan.has_process:
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

    # --- what is granted --------------------------------------------------------------------------

    @property
    def _ends_by_denial(self) -> bool:
        return self._policy is not None and self._policy.syscalls.on_deny == "kill"

    def _audit(
        self,
        grants: Grants,
        directories: Sequence[Preopen] | None,
        catalogue: Mapping[str, str] | None = None,
    ) -> Audit | None:
        """Where what a guest asks for is written down, if it is.  Raises ``PolicyError``.

        ``directories`` are those of a WASI program; ``catalogue`` the calls of a WALI program.
        """
        wanted = self._policy.audit if self._policy is not None else None
        if self._record is None and (wanted is None or wanted.log == "none"):
            return None
        from wali_core._audit import audit

        if directories is None:
            import capabilities

            directories = grants.for_programs(self._policy or capabilities.Policy.none())[0]
        record = None if self._record is None else self._record.file
        return audit(self._policy, grants, directories, catalogue, record=record)

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
        grants.add_env(env or {})
        grants.sockets = tuple(sockets)
        grants.strict_rights = strict_rights
        grants.narrow(wall_time, memory)
        grants.settle(self._policy, everything=self._allow_all)
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
        from wali_core._result import captured_nothing, completed

        started = time.monotonic()
        with Postponed():  # Ctrl-C comes when nothing is half made, or half closed
            self._usable()
            grants = self.grants(
                env, dirs, sockets, wall_time=timeout, memory=memory, strict_rights=strict_rights
            )
            grants.count_from(started)
            with captured_nothing(stdout, stderr, capture=capture_output):
                loaded = self._modules.load_within(grants.bound, module, isolation)
            streams = Streams(
                *(stdin, stdout, stderr),
                capture=capture_output,
                limit=output_limit,
                most=grants.output,
                bound=grants.bound,
            )
            try:
                grants.metered = tuple(streams.passed_on)
                plan = Plan(loaded, grants, streams, args=args, argv0=argv0, isolation=isolation)
                run = partial(self.execute, plan)
                if plan.has_process:
                    from wali_core.processes._process import run_program

                    run = partial(run_program, self._in_process(plan, streams), streams)
                return completed(run, loaded.origin, args, streams)
            finally:
                streams.close()

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

        from wali_core._result import captured_nothing
        from wali_core.tasks._flow import TaskStreams
        from wali_core.tasks._tasks import completed, run_guest, run_process

        @trio.lowlevel.enable_ki_protection  # so that nothing is half made, or half closed
        async def run() -> CompletedGuest:
            started = trio.current_time()
            self._usable()
            grants = self.grants(
                env, dirs, sockets, wall_time=timeout, memory=memory, strict_rights=strict_rights
            )
            grants.count_from(started)
            with captured_nothing(stdout, stderr, capture=capture_output):
                loaded = await self._modules.load_as_task(grants.bound, module, isolation)
            streams = TaskStreams(
                *(stdin, stdout, stderr),
                capture=capture_output,
                limit=output_limit,
                most=grants.output,
                bound=grants.bound,
            )
            try:
                grants.metered = tuple(streams.passed_on)
                plan = Plan(loaded, grants, streams, args=args, argv0=argv0, isolation=isolation)
                if plan.has_process:
                    execute = partial(run_process, self._in_process(plan, streams))
                else:
                    plan.refuse_library()
                    execute = partial(run_guest, partial(self._open, plan))
                return await completed(execute, loaded.origin, args, streams)
            finally:
                streams.close()

        return await run()

    def _in_process(self, plan: Plan, streams: Streams) -> Callable[[], Running]:
        """What starts a WALI program in a process of its own."""
        from wali_core.processes._process import Running

        plan.refuse_wasi_only()
        argv, _ = plan.command_line()
        self.executables(compiling=True)  # for the launcher, which never compiles
        return partial(Running, self._launch(), plan.module, argv, plan.grants, streams)

    def execute(
        self, plan: Plan, use: Callable[[Guest], None] | None = None, *, own_process: bool = False
    ) -> Ending:
        """Run a program in this process, which is there for nothing else if it is its ``own``.

        ``use`` is what to do with the guest instead of calling ``_start``.
        """
        if use is None:
            plan.refuse_library()
        elif plan.is_wali:
            raise ModuleError(
                f"{plan.module.origin}: a WALI program, of which only _start can be called"
            )
        grants = plan.grants
        try:
            guest = self.start(plan, own_process=own_process)
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
        self._modules.forget()
        with self._lock:
            launcher, self._launcher = self._launcher, None
        if launcher is not None:
            launcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
