"""Threads of a WALI program: instances of one module on one memory, each on a thread of its own."""

from __future__ import annotations

import ctypes
import os
import time
from _thread import allocate_lock, get_native_id, stack_size, start_new_thread
from ctypes import byref, c_void_p

from wali_core import _bridge as bridge
from wali_core._abi import START_EXPORT
from wali_core._bridge import W
from wali_core._errors import GuestExit, GuestLimit, more_than
from wali_core._signals import (
    ALL,
    Actions,
    hand_back,
    handle_trap,
    have_polled,
    own_mask,
    pending,
    set_mask,
)
from wali_core.programs._process_calls import system_call
from wali_core.rewriting._prepare import CALL_EXPORT, START_THREAD_EXPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from wali_core.programs._exec import Executed
    from wali_core.programs._program import AnyProgram

_FAILED: Final = -1
TRAPPED: Final = 128 + 6
USED_UP: Final = 128 + 9
_HOST_STACK: Final = 256 << 10  # what Python, wasmtime and the core need beside the guest
_OPEN_FILES: Final = 1024


class Threads:
    """Those of one program, the first not counted.

    ``lock`` is for what they share and Python keeps: it is held for calls that change the address
    space, and while a process is forked.
    """

    def __init__(self, program: AnyProgram) -> None:
        self._program = program
        self.lock = allocate_lock()
        self._slots: dict[int, int] = {}  # of the core's list of who runs, by context
        self._used: set[int] = set()
        self._slots_lock = allocate_lock()
        self._count = 0
        self._left: Any = None  # a lock, where the first thread waits for the others
        self._contexts: list[Any] = []  # for threads to come
        self._dead = -1  # what numbers lead to that are closed while others use them
        self.shared = False
        """Has there been more than one?"""
        self._last_status = 0
        self._first = program.address
        self._kicked = 0  # the handler of the signal that drives threads out of the kernel
        self.most: int | None = None
        """How many there may be at a time in a process, the first counted."""
        self.successor: Executed | None = None
        """What the first is to go on as, when there is no other any more."""

    # --- who runs the program's code --------------------------------------------------------------

    def enter(self, context: int) -> bool:
        """From now on signals of this thread are for ``context``.  False: there are too many."""
        with self._slots_lock:
            slot = next((i for i in range(bridge.MAX_THREADS) if i not in self._used), None)
            if slot is None:
                return False
            self._slots[context] = slot
            self._used.add(slot)
        running = self._program.core.running[slot]
        running.context = context
        running.tid = get_native_id()  # the last: by it the core's handler finds the context
        return True

    def leave(self, context: int) -> None:
        """And no more.  Again does nothing."""
        with self._slots_lock:
            slot = self._slots.pop(context, None)
            if slot is not None:
                self._program.core.running[slot].tid = 0
                self._used.remove(slot)

    def hold_descriptors(self, context: int) -> None:
        """Before a fork: nobody opens or closes any more, until ``let_go``.

        What is being closed is waited for, or the child would find it so for ever.
        """
        self._program.core.table_lock(context)
        table = self._program.context.table.contents
        while bridge.DESCRIPTOR_BUSY in _hosts(table):
            time.sleep(_SHORTEST)
        table.lowest = 0  # in the child nobody says that what he has closed is lower

    def let_go(self) -> None:
        """After it, in both."""
        self._program.context.table.contents.lock = 0

    def forget(self, context: int) -> None:
        """In a forked child: of all threads the calling one is left, its first now."""
        running, slots = self._program.core.running, self._slots
        self._slots_lock = allocate_lock()
        for other, slot in slots.items():
            running[slot].tid = get_native_id() if other == context else 0
            bridge.Context.from_address(other).signal = 0  # the parent has it, as what is pending
        self._slots = {context: slots[context]}
        self._used = {slots[context]}
        self._count, self._left, self._first = 0, None, context
        if self.successor is not None:  # another was about to end it, for a program of the parent's
            Actions(self._program.core).set_handler(_KICK, self._kicked)
            bridge.Context.from_address(context).stop = bridge.STOP_NONE
            self.successor = None

    def begin_again(self) -> None:
        """Another program begins: the one thread that there is has the program's own context."""
        self.leave(self._first)
        self._first, self.successor = self._program.address, None

    # --- their lives ------------------------------------------------------------------------------

    def spawn(self, context: int, entry: int, argument: int) -> int:
        """Start a thread with a function of table 0; its number, or -1.

        It blocks the signals that the calling one does, which has this context.
        """
        if not self.shared and not self._share():
            return _FAILED
        self._program.begin_thread()
        before = set_mask(ALL)
        mask = own_mask(bridge.Context.from_address(context), before)
        begun = allocate_lock()
        begun.acquire()
        thread = _Thread(self._program, self._context(), mask, begun)
        with self.lock:
            full = self.most is not None and self._count + 1 >= self.most
            self._count += not full
        if self.most is not None and full:
            set_mask(before)
            raise more_than("threads", self.most)
        try:
            stack_size(-(-(self._program.stack + _HOST_STACK) // _PAGE) * _PAGE)
            start_new_thread(self._run, (thread, entry, argument))
        except RuntimeError:
            self._ended(thread)
            return _FAILED
        finally:
            set_mask(before)
        begun.acquire()
        return thread.tid

    def prepare(self) -> None:
        """Open what there may be no way to open any more when the first is made."""
        if self._dead < 0:
            self._dead = os.open("/", os.O_PATH | os.O_CLOEXEC)

    def _share(self) -> bool:
        """Before the first: the descriptor table is made for several."""
        self.prepare()
        if self._program.core.table_share(self._program.address, self._dead) < 0:
            return False
        # The program must outlive its threads, whatever the interpreter does at its own end.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._program))
        self.shared = True
        return True

    def _context(self) -> Any:
        with self.lock:
            if self._contexts:
                return self._contexts.pop()
        return ctypes.create_string_buffer(self._program.core.context_size)

    def _run(self, thread: _Thread, entry: int, argument: int) -> None:
        try:
            if thread.begin():
                thread.run(entry, argument)
                if thread.address == self._first:
                    self._end_process(thread)
        except BaseException as error:  # noqa: BLE001 - in the host's part: nobody could go on
            os.write(2, f"wali: a thread of the program failed: {error}\n".encode())
            os._exit(TRAPPED)
        finally:
            self._ended(thread)

    def _end_process(self, thread: _Thread) -> None:
        """The end of a thread that has forked, in the child, where it is the first."""
        status = self.outlive(thread.status)
        if self.successor is None:
            os._exit(status)
        thread.close()
        self._program.go_on(self.successor)

    def _ended(self, thread: _Thread) -> None:
        thread.close()
        self._program.end_thread()
        with self.lock:
            self._contexts.append(thread.buffer)  # others may be looking at it: it is never freed
            self._count -= 1
            left = self._left if self._count == 0 else None
            self._last_status = thread.status
        if left is not None:
            left.release()

    def outlive(self, status: int) -> int:
        """The first thread has ended by itself: wait for the others; the process's status.

        It is that of the last to end, as Linux has had it since 5.17.
        """
        with self.lock:
            if self._count == 0:
                return status
            self._left = allocate_lock()
            self._left.acquire()
        set_mask(ALL)
        self.leave(self._first)
        hand_back(bridge.Context.from_address(self._first))
        self._left.acquire()
        self._left = None
        return self._last_status

    # --- another program in their place -----------------------------------------------------------

    def make_way(self, context: int, successor: Executed) -> BaseException:
        """End all but the calling thread, for a program that it has executed, as execve(2) does.

        It is the first that goes on as that program: if this is another, it is to end as well, and
        so is one that comes second.  What comes back is to be raised.
        """
        thread, actions = bridge.Context.from_address(context), Actions(self._program.core)
        successor.mask, pause = own_mask(thread, set_mask(ALL)), _SHORTEST
        with self.lock:
            if self.successor is not None:
                thread.stop = bridge.STOP_EXIT
                return GuestExit(0)
            self.successor = successor
            self._kicked = actions.set_handler(_KICK, _ANY_HANDLER)
        successor.pending = pending()
        thread.code = 0  # a signal in flight is the program's, which has one thread, whose it was
        while self._push(context):
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        actions.set_handler(_KICK, self._kicked)
        thread.stop = bridge.STOP_EXIT
        return successor

    def _push(self, context: int) -> bool:
        """Have every other thread come to its end.  Is there one still?

        What computes sees it at its next safepoint.  What waits in the kernel comes out of there by
        a signal, one of those that are never blocked, since they are traps.  It is in flight then,
        so that the call ends in the core, which finds that the thread is to end.
        """
        with self._slots_lock:  # none of them leaves, and none's store goes
            others = [(other, slot) for other, slot in self._slots.items() if other != context]
            for other, slot in others:
                bridge.Context.from_address(other).stop = bridge.STOP_EXIT
                have_polled(other)
                try:
                    system_call("tgkill", os.getpid(), self._program.core.running[slot].tid, _KICK)
                except OSError:
                    pass  # it has just left
        first = context == self._first
        return bool(others) or (first and self._count > 0)


class _Thread:
    """One thread, from its start to its end."""

    def __init__(self, program: AnyProgram, buffer: Any, mask: int, begun: Any) -> None:
        self._program = program
        self.buffer = buffer
        self.address = ctypes.addressof(buffer)
        self._mask = mask
        self._begun = begun
        self._owner: int | None = None
        self.tid = _FAILED
        self.status = 0

    def begin(self) -> bool:
        """Make the instance; whoever has spawned it waits for that."""
        try:
            if self._make() and self._program.threads.enter(self.address):
                self.tid = get_native_id()
        finally:
            self._begun.release()
        return self.tid != _FAILED

    def _make(self) -> bool:
        program = self._program
        ctypes.memset(self.address, 0, len(self.buffer))
        program.core.context_init(self.address, _OPEN_FILES)
        self._context = context = bridge.Context.from_buffer(self.buffer)
        of = program.context
        context.table, context.host, context.direct = of.table, of.host, of.direct
        context.cwd, context.network = of.cwd, of.network
        self._owner = W["wasmtime_store_new"](program.engine, self.address, None)
        self._store = W["wasmtime_store_context"](self._owner)
        program.core.context_bind_shared(self.address, self._store, program.memory_base)
        context.store = self._owner
        instance, trap = bridge.Instance(), c_void_p()
        error = W["wasmtime_instance_pre_instantiate"](
            program.pre, self._store, byref(instance), byref(trap)
        )
        if error or trap.value:
            _drop(error, trap.value)
            return False
        program.serve_instance(self._store, instance, context)
        self._start, call, entry = (
            bridge.export_of(self._store, instance, name)
            for name in (START_EXPORT, CALL_EXPORT, START_THREAD_EXPORT)
        )
        if call is None or entry is None:
            return False
        context.call, self._entry = call.of.func, entry.of.func
        return True

    def run(self, entry: int, argument: int) -> None:
        """Call the instance's start function, and then the thread's.

        Until that has given it a stack of its own, no handler may run: it would on the first's.  A
        trap, or what Python raises in a call, is the process's end.
        """
        trap = c_void_p()
        error = self._call(self._start.of.func, trap) if self._start is not None else None
        set_mask(self._mask)
        if not (error or trap.value):
            error = self._call(self._entry, trap, entry, self.tid, argument)
        if trap.value and not self._context.stop:
            of = self._program
            handled = handle_trap(of.core, self._store, self._context.call, trap.value)
            if handled is not None:
                W["wasm_trap_delete"](trap)
                error, trap.value = handled
        set_mask(ALL)
        self._program.threads.leave(self.address)
        hand_back(self._context)
        text = _drop(error, trap.value)
        self.status = self._context.status & 0xFF
        if (error or trap.value) and self._context.stop != bridge.STOP_EXIT:
            failure = self._program.failure_of(self.address)
            if self._context.stop == bridge.STOP_FILES:
                failure = more_than("open_files", self._context.table.contents.limit_most)
            text = f"wali: a thread of the program trapped: {failure or text}\n"
            os.write(2, text.encode())
            os._exit(USED_UP if isinstance(failure, GuestLimit) else TRAPPED)

    def _call(self, function: bridge.Func, trap: c_void_p, *numbers: int) -> int | None:
        values = (bridge.ValRaw * max(len(numbers), 1))()
        for value, number in zip(values, numbers, strict=False):
            value.i32 = ctypes.c_int32(number).value
        error: int | None = W["wasmtime_func_call_unchecked"](
            self._store, byref(function), values, len(numbers), byref(trap)
        )
        return error

    def close(self) -> None:
        """Free what it had."""
        if self._owner is not None:
            self._program.threads.leave(self.address)
            W["wasmtime_store_delete"](self._owner)
            self._program.core.context_close(self.address)
            self._owner = None


def _hosts(table: bridge.Table) -> memoryview:
    """What each number of a guest's is to the host: ``struct descriptor``'s first of two words."""
    return memoryview(ctypes.string_at(table.descriptors, 8 * table.capacity)).cast("i")[::2]


def _drop(error: int | None, trap: int | None) -> str:
    """Free how a call ended; its words."""
    words = ""
    if error:
        words = bridge.error_message(error)
    if trap:
        words = bridge.trap_message(trap)[0]
    return bridge.last_line(words)


_PAGE: Final = 4096
_KICK: Final = 7  # SIGBUS
_ANY_HANDLER: Final = 1  # which is not called
_SHORTEST, _LONGEST = 0.0002, 0.02  # seconds
