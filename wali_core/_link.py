"""Linking: which thunk stands behind an import.  This is where the gate is."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p

from wali_core import _bridge as bridge
from wali_core._bridge import W
from wali_core._errors import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    from wali_core._engine import Module

    Hook = Callable[[Sequence[int], Callable[[], int]], int]
    """Gets a call's arguments and what makes it, and gives its result."""


_CALLBACK = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, ctypes.c_size_t)
_SIGNED = {"i": ctypes.c_int32, "I": ctypes.c_int64}


class Trapped(Exception):
    """What a hook went on to has ended the guest."""

    def __init__(self, trap: int) -> None:
        super().__init__(trap)
        self.trap = trap


class HostFunctions:
    """Functions in Python that a guest calls: each call takes a microsecond or more.

    An exception that one raises ends the guest, and ``failure`` holds it.  They live as long as
    this does.
    """

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self._callbacks: list[Any] = []

    def make(self, parameters: str, call: Callable[..., int]) -> int:
        """The address of an unchecked host function.

        ``call`` gets the arguments, no context, the caller, and where the values are and how many.
        """
        types = _places(parameters)

        def run(_env: int, caller: int, values: int, count: int) -> int | None:
            try:
                arguments = [kind.from_address(values + at).value for kind, at in types]
                result = call(arguments, None, caller, values, count)
                ctypes.c_int64.from_address(values).value = result
            except Trapped as end:
                return end.trap
            except BaseException as error:  # noqa: BLE001 - raised again where the guest was called
                self.failure = error
                trap: int = W["wasmtime_trap_new"](b"host", 4)
                return trap
            return None

        callback = _CALLBACK(run)
        self._callbacks.append(callback)
        return ctypes.cast(callback, c_void_p).value or 0

    def forget(self) -> None:
        """Let them go: nobody can call them any more."""
        self._callbacks.clear()
        self.failure = None


class Suspended(Exception):
    """A thunk has to be called again, when what is in the guest's slot has come to pass."""


class Request:
    """A call in Python of a guest on a fiber, which is made on the stack of who drives that.

    Called with the address of its values and that of the guest's context; gives the result, or what
    is to be awaited for it.  Raises ``Trapped`` and ``Suspended``, and whatever the call raises.
    """

    def __init__(self, parameters: str, call: Callable[..., Any]) -> None:
        self._types = _places(parameters)
        self._call = call

    def __call__(self, values: int, context: int) -> Any:
        arguments = [kind.from_address(values + at).value for kind, at in self._types]
        return self._call(arguments, context, None, values, len(arguments))


class Link:
    """A module with every import resolved to a thunk.

    Made once for a module and a gate, and shared by all guests that they serve: the thunks find the
    guest through its store.  May be used by several threads.

    For guests on fibers (``cooperative``), calls that can wait are asynchronous ones, and those in
    Python are ``requests``: they know them by the number that is in their slot.

    ``gate`` maps the names of calls that are held back (``"SYS_unlinkat"``) to the positive errno
    that they answer.  ``hooks`` go around calls, by name: for one guest, and in Python
    (``functions``).  Raises ``ModuleError`` for an import that cannot be had.
    """

    def __init__(
        self,
        module: Module,
        gate: Mapping[str, int] | None = None,
        hooks: Mapping[str, Hook] | None = None,
        *,
        cooperative: bool = False,
    ) -> None:
        self.module = module
        self._cooperative = cooperative
        self.denials: dict[str, bridge.Denial] = {}
        self.functions = HostFunctions()
        self.requests: dict[int, Request] = {}
        self._gate = gate or {}
        self._hooks = hooks or {}
        self.linker: int | None = W["wasmtime_linker_new"](module.engine.pointer)
        self.pre: int | None = None
        try:
            for item in module.imports:
                self._define(item)
            pre = c_void_p()
            bridge.check(
                W["wasmtime_linker_instantiate_pre"](self.linker, module.pointer, byref(pre))
            )
            self.pre = pre.value
        except BaseException:
            self.close()
            raise

    def _define(self, item: bridge.ImportType) -> None:
        thunk, env = self._resolve(item)
        if item.name in self._hooks:
            thunk, env = self._around(item, thunk, env, self._hooks[item.name]), None
        module, name = item.module.encode(), item.name.encode()
        where = self.linker, module, len(module), name, len(name), item.functype
        if self._cooperative and (enter := self._suspending(item, thunk)):
            bridge.check(W["wasmtime_linker_define_async_func"](*where, enter, thunk, None))
        else:
            bridge.check(W["wasmtime_linker_define_func_unchecked"](*where, thunk, env, None))

    def _suspending(self, item: bridge.ImportType, thunk: int) -> int | None:
        """The function of the core's through which a call can suspend its guest, if it may."""
        core = self.module.engine.core
        if thunk in self.requests:
            return core.async_call
        row = core.calls.get(("wali" if item.module == "wali_guest" else item.module, item.name))
        return core.async_call if row is not None and row.waits and thunk != core.denied else None

    def _resolve(self, item: bridge.ImportType) -> tuple[int, int | None]:
        """The thunk for an import, and its env: none, so that it asks the store for the guest."""
        row, thunk = self._offered(item)
        if item.kind != bridge.EXTERN_FUNC or row is None or not thunk:
            raise ModuleError(f"{self._where(item)}, {self.refusal}")
        expected = row.parameters.decode(), row.result.decode()
        if not self._takes(item, expected[0]) or not _fits(item, expected[1]):
            raise ModuleError(
                f"{self._where(item)} with another type than ({expected[0]}) -> ({expected[1]})"
                " (i: i32, I: i64)"
            )
        if item.name not in self._gate:
            return thunk, None
        denial = self.denials.setdefault(item.name, bridge.Denial(-self._gate[item.name], 0))
        return self.module.engine.core.denied, ctypes.addressof(denial)

    def _takes(self, item: bridge.ImportType, parameters: str) -> bool:
        """Is an import typed as a thunk is that takes these parameters?"""
        return item.parameters == parameters

    def _around(self, item: bridge.ImportType, thunk: int, env: int | None, hook: Hook) -> int:
        """A host function that runs a hook, which may go on to the import's thunk."""
        inner = _CALLBACK(thunk)

        def call(
            arguments: Sequence[int], context: int | None, caller: int, values: int, count: int
        ) -> int:
            def proceed() -> int:
                trap = inner(env or context, caller, values, count)
                if trap:
                    raise Trapped(trap)
                result = ctypes.c_int64.from_address(values).value
                if result == bridge.SUSPENDED:
                    raise Suspended
                return result

            return hook(arguments, proceed)

        return self._function(item, call)

    def _function(self, item: bridge.ImportType, call: Callable[..., int]) -> int:
        """A host function in Python; for guests on fibers it is the number of a request.

        ``call`` gets the arguments, the guest's context where that is known, the caller, and where
        the values are and how many.
        """
        if not self._cooperative:
            return self.functions.make(item.parameters, call)
        gives_i32 = item.results == "i"
        number = 2 * len(self.requests) + 2 + (bridge.REQUEST_GIVES_I32 if gives_i32 else 0)
        if number >= bridge.MOST_REQUESTS:
            raise ModuleError(f"{self._where(item)}: more imports of calls in Python than served")
        self.requests[number] = Request(item.parameters, call)
        return number

    def _where(self, item: bridge.ImportType) -> str:
        return f"{self.module.origin}: imports {item.module}.{item.name}"

    refusal = ""
    """Why an import is refused that is not offered."""

    def _offered(self, item: bridge.ImportType) -> tuple[Any, Any]:
        """The table's row for an import, and the thunk that this kind of module may have."""
        raise NotImplementedError

    def close(self) -> None:
        if self.pre:
            W["wasmtime_instance_pre_delete"](self.pre)
        if self.linker:
            W["wasmtime_linker_delete"](self.linker)
        self.pre = self.linker = None

    def __del__(self) -> None:
        self.close()


def _proceed(_arguments: Sequence[int], proceed: Callable[[], int]) -> int:
    return proceed()


def _places(parameters: str) -> list[tuple[Any, int]]:
    """The type of each argument, and how far behind the first it lies."""
    return [(_SIGNED[kind], 16 * i) for i, kind in enumerate(parameters)]


def _fits(item: bridge.ImportType, result: str) -> bool:
    """May a thunk with this result stand behind the import?

    Some modules type SYS_exit and its like without a result.  A thunk writes one all the same, into
    the slot of its first argument: without arguments there is no slot, and it would write beyond.
    """
    return item.results == result or (not item.results and bool(item.parameters))


class ShimLink(Link):
    """A shim's module: in capability mode, and only the calls that the table gives to shims."""

    refusal = "which a shim may not have"

    room: int | None = None
    """Where it keeps room for a configuration, if it does and that is known."""

    def _suspending(self, item: bridge.ImportType, thunk: int) -> int | None:
        """A shim's calls say themselves that they would wait; it has one that does nothing else."""
        waits = thunk in self.requests or (item.module, item.name) == ("guest", "suspend")
        return self.module.engine.core.async_call if waits else None

    def _offered(self, item: bridge.ImportType) -> tuple[Any, Any]:
        on_guest = item.module == "wali_guest"
        row = self.module.engine.core.calls.get(("wali" if on_guest else item.module, item.name))
        return row, row and (row.capable_guest if on_guest else row.capable)


_OFFSET_IN_HALVES = ("SYS_preadv", "SYS_pwritev")


class ProgramLink(Link):
    """A WALI program's module: the calls of the table as Linux has them, for one guest.

    ``host_calls`` names those of the calls left to Python which the guest's context serves.
    ``memory`` is what the program imports as its memory. ``context`` is the address of the guest's
    context, where no thread has another: its thunks need not ask for it. A system call that nobody
    serves answers ``-ENOSYS``; ``missing`` names those.  For a guest on a fiber, ``instead`` has
    calls in Python that stand for those of the core; they may be asynchronous; and ``suspending``
    functions of its store that stand for calls which can wait.
    """

    refusal = "which is not a call of WALI"

    def __init__(
        self,
        module: Module,
        gate: Mapping[str, int] | None = None,
        *,
        store: int | None = None,
        memory: bridge.Extern | None = None,
        host_calls: Collection[str] = (),
        hooks: Mapping[str, Hook] | None = None,
        instead: Mapping[str, Callable[..., Any]] | None = None,
        suspending: Mapping[str, bridge.Extern] | None = None,
        cooperative: bool = False,
        context: int | None = None,
    ) -> None:
        self._store, self._memory, self._context = store, memory, context
        self._suspending_calls = suspending or {}
        self._host_calls, self._instead = host_calls, instead or {}
        self.missing: list[str] = []
        super().__init__(module, gate, hooks, cooperative=cooperative)

    def _define(self, item: bridge.ImportType) -> None:
        extern = self._memory if item.kind == bridge.EXTERN_MEMORY else self._made_to_suspend(item)
        if extern is None:
            super()._define(item)
            return
        module, name = item.module.encode(), item.name.encode()
        bridge.check(
            W["wasmtime_linker_define"](
                self.linker, self._store, module, len(module), name, len(name), byref(extern)
            )
        )

    def _made_to_suspend(self, item: bridge.ImportType) -> bridge.Extern | None:
        """The function around a call, where nothing else stands for that; of its very type."""
        row = self.module.engine.core.calls.get((item.module, item.name))
        if row is None or item.name in self._gate or item.name in self._hooks:
            return None
        expected = row.parameters.decode(), row.result.decode()
        same = (item.parameters, item.results) == expected
        return self._suspending_calls.get(item.name) if same else None

    def _resolve(self, item: bridge.ImportType) -> tuple[int, int | None]:
        calls = self.module.engine.core.calls
        row = calls.get((item.module, item.name))
        planned = self.module.engine.core.unserved
        unserved = row is None or not (row.native or item.name in self._host_calls)
        if row is not None and row.native == planned:
            self.missing.append(item.name)
        elif item.kind == bridge.EXTERN_FUNC and unserved and item.name.startswith("SYS_"):
            self.missing.append(item.name)
            return self._typed_missing(item), None
        thunk, env = super()._resolve(item)
        return thunk, env or self._context

    def _takes(self, item: bridge.ImportType, parameters: str) -> bool:
        """Libc passes the upper half of an offset as well, at which no 64-bit kernel looks."""
        also = parameters + "I" if item.name in _OFFSET_IN_HALVES else parameters
        return item.parameters in (parameters, also)

    def _typed_missing(self, item: bridge.ImportType) -> int:
        """``-ENOSYS`` for any type that a module gives to a call that nobody knows."""
        if not _fits(item, "I"):
            raise ModuleError(f"{self._where(item)} with a result that no system call has")
        return self.module.engine.core.unserved

    def _offered(self, item: bridge.ImportType) -> tuple[Any, Any]:
        row = self.module.engine.core.calls.get((item.module, item.name))
        if row is None:
            return None, None
        hosted = row.hosted and item.name in self._host_calls
        if self._cooperative and item.name in self._instead:
            served = self._instead[item.name]
            return row, self._function(item, lambda arguments, *_: served(*arguments))
        if self._cooperative and item.name in self._host_calls:
            return row, self._around(item, row.hosted or row.native, None, _proceed)
        return row, row.hosted if hosted else row.native


def composed(*hooks: Mapping[str, Hook]) -> dict[str, Hook]:
    """Hooks around hooks: the first are the outer ones."""
    made: dict[str, Hook] = {}
    for outer in reversed(hooks):
        for name, hook in outer.items():
            made[name] = _within(hook, made[name]) if name in made else hook
    return made


def _within(outer: Hook, inner: Hook) -> Hook:
    return lambda arguments, proceed: outer(arguments, lambda: inner(arguments, proceed))
