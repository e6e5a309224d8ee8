"""The only module that calls wasmtime's C API and the native core.

It declares with ctypes the functions that it needs and loads wasmtime's own library itself: the
Python package of wasmtime is found, but none of its code runs, which saves most of the start-up
time.  Every symbol is looked up here, at import; a wasmtime that lacks one is refused at once.
``tests/wali_core/test_bridge.py`` compares the structs with wasmtime's own declarations.

Pointers to wasmtime's objects are plain integers (``c_void_p``).  What owns them, and frees them,
is said where they are stored.
"""

from __future__ import annotations

import ctypes
import os
import sys
from _frozen_importlib_external import PathFinder  # importlib.machinery would load warnings
from _thread import get_ident, get_native_id
from ctypes import (
    POINTER,
    byref,
    c_bool,
    c_char_p,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)

from wali_core import _layout
from wali_core._errors import ModuleError, UnsupportedPlatform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

OLDEST_WASMTIME: Final = 48
"""The oldest major that the tests run on."""


# --- structs of wasmtime's C API ------------------------------------------------------------------


class ByteVec(ctypes.Structure):
    """``wasm_byte_vec_t``, and the shape of every other ``wasm_*_vec_t``."""

    _fields_ = (("size", c_size_t), ("data", c_void_p))
    size: int
    data: int | None


class Func(ctypes.Structure):
    """The C API's ``wasmtime_func_t``."""

    _fields_ = (("store_id", c_uint64), ("private", c_void_p))


class Instance(ctypes.Structure):
    """The C API's ``wasmtime_instance_t``."""

    _fields_ = (("store_id", c_uint64), ("private", c_size_t))


class _MemoryHandle(ctypes.Structure):
    _fields_ = (("store_id", c_uint64), ("private1", c_uint32))


class Memory(ctypes.Structure):
    """The C API's ``wasmtime_memory_t``."""

    _fields_ = (("handle", _MemoryHandle), ("private2", c_uint32))


class ExternUnion(ctypes.Union):
    """The union of ``wasmtime_extern_t``; tables and globals are as large as memories."""

    _fields_ = (("func", Func), ("memory", Memory), ("sharedmemory", c_void_p))
    func: Func
    memory: Memory
    sharedmemory: int | None


class Extern(ctypes.Structure):
    """The C API's ``wasmtime_extern_t``."""

    _fields_ = (("kind", c_uint8), ("of", ExternUnion))
    kind: int
    of: ExternUnion


OF: Final = Extern.of.offset
"""Where in an ``Extern`` that is which ``kind`` names, in bytes."""


class ValRaw(ctypes.Union):
    """``wasmtime_val_raw_t``: 16 bytes, untagged."""

    _fields_ = (
        ("i32", c_int32),
        ("i64", c_int64),
        ("f32", ctypes.c_float),
        ("f64", ctypes.c_double),
        ("v128", c_uint8 * 16),
    )
    i32: int
    i64: int
    f32: float
    f64: float


class Val(ctypes.Structure):
    """``wasmtime_val_t``: what functions of asynchronous stores take and give."""

    _fields_ = (("kind", c_uint8), ("of", ValRaw), ("_rest", c_uint64))
    kind: int
    of: ValRaw


NUMBER_KINDS: Final = "iIfF"
"""The kinds of a ``Val``, by their letters (``types_of``)."""
FUNCREF: Final = 5
"""And that of a reference to a function."""

EXTERN_FUNC, EXTERN_GLOBAL, EXTERN_TABLE, EXTERN_MEMORY, EXTERN_SHAREDMEMORY = range(5)


# --- structs of the core (_layout.py) -------------------------------------------------------------


class PollFd(ctypes.Structure):
    """The kernel's ``struct pollfd``."""

    _fields_ = (("fd", c_int32), ("events", ctypes.c_int16), ("revents", ctypes.c_int16))
    fd: int
    events: int
    revents: int


_C_TYPES: Final[dict[str, Any]] = {
    "uint32_t": c_uint32,
    "int32_t": c_int32,
    "uint64_t": c_uint64,
    "int64_t": c_int64,
    "const char *": c_char_p,
    "struct pollfd *": POINTER(PollFd),
    "struct arguments": ValRaw * 6,
    "wasmtime_func_t": Func,
}


def _fields(layout: _layout.Fields) -> tuple[tuple[str, Any], ...]:
    """The fields of a ctypes structure; what is not looked into is a bare address."""
    return tuple((name, _C_TYPES.get(c, c_void_p)) for c, name, _ in layout)


class Slot(ctypes.Structure):
    """What a suspended guest waits for: ``struct slot``."""

    _fields_ = _fields(_layout.SLOT)
    fds: Any
    count: int
    suspended: int
    until: int
    request: int | None
    requested: int
    answered: int
    answer: int
    resumed: int
    grow: int
    room: int
    arguments: Any
    done: int
    repeats: int


_C_TYPES["struct slot"] = Slot
MOST_REQUESTS: Final = _layout.NUMBERS["MOST_REQUESTS"]
REQUEST_GIVES_I32: Final = _layout.NUMBERS["REQUEST_GIVES_I32"]
SUSPENDED: Final = -(2**63) + 1
"""What a thunk answers that has to be called again."""
MAX_THREADS: Final = _layout.NUMBERS["MAX_THREADS"]
_ACTIONS: Final = 65 * 24
_MOST_CALLS: Final = 1024
_VULNERABILITIES: Final = "/sys/devices/system/cpu/vulnerabilities"
RESUME_NOT: Final = _layout.NUMBERS["RESUME_NOT"]
RESUME_READY: Final = _layout.NUMBERS["RESUME_READY"]
RESUME_EXPIRED: Final = _layout.NUMBERS["RESUME_EXPIRED"]


class Table(ctypes.Structure):
    """The first part of ``struct table``: a guest's descriptors."""

    _fields_ = _fields(_layout.TABLE)
    limit: int
    limit_most: int
    capacity: int
    lowest: int
    dead: int
    lock: int
    ends: int
    procfs: int
    descriptors: int


_C_TYPES["struct table *"] = POINTER(Table)


class Running(ctypes.Structure):
    """Who runs a program's code: an element of ``wali_running``."""

    _fields_ = (("tid", c_int64), ("context", c_void_p))
    tid: int
    context: int | None


HOST_CALL: Final = ctypes.CFUNCTYPE(c_int64, c_void_p, c_uint32, c_void_p)
"""The type of ``struct context``'s ``host``."""


class Context(ctypes.Structure):
    """The first part of ``struct context``, which Python may look into."""

    _fields_ = _fields(_layout.CONTEXT)
    stop: int
    status: int
    deadline: int
    calls: int
    waits: int
    read: int
    written: int
    wake: int
    refused_write: int
    cwd: int
    network: int
    crossing: int
    table: Any
    host: int | None
    direct: int
    signal: int
    store: int | None
    call: Func
    trap: int | None
    cooperative: int
    slot: Slot


STOP_NONE: Final = _layout.NUMBERS["STOP_NONE"]
STOP_EXIT: Final = _layout.NUMBERS["STOP_EXIT"]
STOP_TIMEOUT: Final = _layout.NUMBERS["STOP_TIMEOUT"]
STOP_INTERRUPT: Final = _layout.NUMBERS["STOP_INTERRUPT"]
STOP_FILES: Final = _layout.NUMBERS["STOP_FILES"]
NO_DEADLINE: Final = 2**63 - 1
DESCRIPTOR_CLOEXEC: Final = _layout.NUMBERS["DESCRIPTOR_CLOEXEC"]
DESCRIPTOR_BORROWED: Final = _layout.NUMBERS["DESCRIPTOR_BORROWED"]
DESCRIPTOR_SHARED: Final = _layout.NUMBERS["DESCRIPTOR_SHARED"]
DESCRIPTOR_READ_ONLY: Final = _layout.NUMBERS["DESCRIPTOR_READ_ONLY"]
DESCRIPTOR_MAY_REACH_PROC: Final = _layout.NUMBERS["DESCRIPTOR_MAY_REACH_PROC"]
DESCRIPTOR_BUSY: Final = _layout.NUMBERS["DESCRIPTOR_BUSY"]


class _Call(ctypes.Structure):
    _fields_ = _fields(_layout.CALL)


class Denial(ctypes.Structure):
    """``struct denial``: what a call answers that the gate holds back, and how often it did."""

    _fields_ = (("result", c_int64), ("count", c_uint64))
    result: int
    count: int


# --- wasmtime's library ---------------------------------------------------------------------------

P = c_void_p

# name: (result, arguments).  An error, a trap and every object is a pointer.
_WASMTIME: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "wasm_byte_vec_delete": (None, (P,)),
    "wasm_config_new": (P, ()),
    "wasmtime_config_epoch_interruption_set": (None, (P, c_bool)),
    "wasmtime_config_wasm_branch_hinting_set": (None, (P, c_bool)),
    "wasmtime_config_memory_may_move_set": (None, (P, c_bool)),
    "wasmtime_config_max_wasm_stack_set": (None, (P, c_size_t)),
    "wasmtime_config_shared_memory_set": (None, (P, c_bool)),
    "wasmtime_config_memory_reservation_set": (None, (P, c_uint64)),
    "wasmtime_config_parallel_compilation_set": (None, (P, c_bool)),
    "wasmtime_config_memory_init_cow_set": (None, (P, c_bool)),
    "wasmtime_pooling_allocation_config_new": (P, ()),
    "wasmtime_pooling_allocation_config_delete": (None, (P,)),
    "wasmtime_pooling_allocation_config_total_core_instances_set": (None, (P, c_uint32)),
    "wasmtime_pooling_allocation_config_total_memories_set": (None, (P, c_uint32)),
    "wasmtime_pooling_allocation_config_total_tables_set": (None, (P, c_uint32)),
    "wasmtime_pooling_allocation_config_total_stacks_set": (None, (P, c_uint32)),
    "wasmtime_pooling_allocation_strategy_set": (None, (P, P)),
    "wasm_engine_new_with_config": (P, (P,)),
    "wasm_engine_delete": (None, (P,)),
    "wasmtime_engine_increment_epoch": (None, (P,)),
    "wasmtime_module_validate": (P, (P, c_char_p, c_size_t)),
    "wasmtime_module_new": (P, (P, c_char_p, c_size_t, POINTER(P))),
    "wasmtime_module_delete": (None, (P,)),
    "wasmtime_module_serialize": (P, (P, POINTER(ByteVec))),
    "wasmtime_module_deserialize_file": (P, (P, c_char_p, POINTER(P))),
    "wasmtime_module_imports": (None, (P, POINTER(ByteVec))),
    "wasmtime_module_exports": (None, (P, POINTER(ByteVec))),
    "wasm_importtype_vec_delete": (None, (POINTER(ByteVec),)),
    "wasm_importtype_module": (POINTER(ByteVec), (P,)),
    "wasm_importtype_name": (POINTER(ByteVec), (P,)),
    "wasm_importtype_type": (P, (P,)),
    "wasm_exporttype_vec_delete": (None, (POINTER(ByteVec),)),
    "wasm_exporttype_name": (POINTER(ByteVec), (P,)),
    "wasm_exporttype_type": (P, (P,)),
    "wasm_externtype_kind": (c_uint8, (P,)),
    "wasm_externtype_as_functype_const": (P, (P,)),
    "wasm_functype_params": (POINTER(ByteVec), (P,)),
    "wasm_functype_results": (POINTER(ByteVec), (P,)),
    "wasm_functype_new": (P, (POINTER(ByteVec), POINTER(ByteVec))),
    "wasm_functype_delete": (None, (P,)),
    "wasm_valtype_new": (P, (c_uint8,)),
    "wasm_valtype_vec_new": (None, (POINTER(ByteVec), c_size_t, P)),
    "wasmtime_wasm_valtype_equal": (c_bool, (P, P)),
    "wasmtime_linker_new": (P, (P,)),
    "wasmtime_linker_delete": (None, (P,)),
    "wasmtime_linker_define_func_unchecked": (
        P,
        (P, c_char_p, c_size_t, c_char_p, c_size_t, P, P, P, P),
    ),
    "wasmtime_linker_instantiate_pre": (P, (P, P, POINTER(P))),
    "wasmtime_instance_pre_instantiate": (P, (P, P, POINTER(Instance), POINTER(P))),
    "wasmtime_instance_pre_delete": (None, (P,)),
    "wasmtime_instance_new": (P, (P, P, P, c_size_t, POINTER(Instance), POINTER(P))),
    "wasmtime_instance_export_get": (
        c_bool,
        (P, POINTER(Instance), c_char_p, c_size_t, POINTER(Extern)),
    ),
    "wasmtime_store_new": (P, (P, P, P)),
    "wasmtime_store_context": (P, (P,)),
    "wasmtime_store_delete": (None, (P,)),
    "wasmtime_store_limiter": (None, (P, c_int64, c_int64, c_int64, c_int64, c_int64)),
    "wasmtime_store_epoch_deadline_callback": (None, (P, P, P, P)),
    "wasmtime_context_set_epoch_deadline": (None, (P, c_uint64)),
    "wasmtime_func_type": (P, (P, P)),
    "wasmtime_func_call_unchecked": (P, (P, P, P, c_size_t, POINTER(P))),
    "wasmtime_table_set": (P, (P, P, c_uint64, POINTER(Val))),
    "wasmtime_global_get": (None, (P, P, P)),
    "wasmtime_memory_data": (P, (P, POINTER(Memory))),
    "wasmtime_memory_data_size": (c_size_t, (P, POINTER(Memory))),
    "wasmtime_memory_new": (P, (P, P, POINTER(Memory))),
    "wasmtime_memory_grow": (P, (P, POINTER(Memory), c_uint64, POINTER(c_uint64))),
    "wasm_externtype_as_memorytype_const": (P, (P,)),
    "wasmtime_memorytype_new": (
        P,
        (c_uint64, c_bool, c_uint64, c_bool, c_bool, c_uint8, POINTER(P)),
    ),
    "wasmtime_memorytype_minimum": (c_uint64, (P,)),
    "wasmtime_memorytype_maximum": (c_bool, (P, POINTER(c_uint64))),
    "wasmtime_memorytype_isshared": (c_bool, (P,)),
    "wasm_memorytype_delete": (None, (P,)),
    "wasmtime_sharedmemory_new": (P, (P, P, POINTER(P))),
    "wasmtime_sharedmemory_delete": (None, (P,)),
    "wasmtime_sharedmemory_data": (P, (P,)),
    "wasmtime_sharedmemory_data_size": (c_size_t, (P,)),
    "wasmtime_sharedmemory_grow": (P, (P, c_uint64, POINTER(c_uint64))),
    "wasmtime_linker_define": (P, (P, P, c_char_p, c_size_t, c_char_p, c_size_t, POINTER(Extern))),
    "wasmtime_linker_allow_shadowing": (None, (P, c_bool)),
    "wasmtime_linker_get": (
        c_bool,
        (P, P, c_char_p, c_size_t, c_char_p, c_size_t, POINTER(Extern)),
    ),
    "wasmtime_caller_context": (P, (P,)),
    "wasmtime_caller_export_get": (c_bool, (P, c_char_p, c_size_t, POINTER(Extern))),
    "wasmtime_func_new_unchecked": (None, (P, P, P, P, P, POINTER(Func))),
    "wasmtime_config_async_stack_size_set": (None, (P, c_uint64)),
    "wasmtime_linker_define_async_func": (
        P,
        (P, c_char_p, c_size_t, c_char_p, c_size_t, P, P, P, P),
    ),
    "wasmtime_instance_pre_instantiate_async": (P, (P, P, POINTER(Instance), P, P)),
    "wasmtime_linker_instantiate_async": (P, (P, P, P, POINTER(Instance), P, P)),
    "wasmtime_func_call_async": (
        P,
        (P, P, P, c_size_t, P, c_size_t, P, P),
    ),
    "wasmtime_call_future_poll": (c_bool, (P,)),
    "wasmtime_call_future_delete": (None, (P,)),
    "wasmtime_context_epoch_deadline_async_yield_and_update": (P, (P, c_uint64)),
    "wasmtime_trap_new": (P, (c_char_p, c_size_t)),
    "wasmtime_error_message": (None, (P, POINTER(ByteVec))),
    "wasmtime_error_delete": (None, (P,)),
    "wasm_trap_message": (None, (P, POINTER(ByteVec))),
    "wasm_trap_trace": (None, (P, POINTER(ByteVec))),
    "wasmtime_trap_code": (c_bool, (P, POINTER(c_uint8))),
    "wasm_trap_delete": (None, (P,)),
    "wasm_frame_vec_delete": (None, (POINTER(ByteVec),)),
    "wasm_frame_func_index": (c_uint32, (P,)),
    "wasmtime_frame_func_name": (POINTER(ByteVec), (P,)),
}

# What the core calls, in the order of struct wasmtime_api; libc's clock_gettime follows.
_CORE_NEEDS: Final = tuple(f"wasmtime_{name}" for _, name, _ in _layout.WASMTIME)

_CORE: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "wali_init": (None, (P,)),
    "wali_install_fault_handler": (c_int64, ()),
    "wali_take_sent_signals": (None, ()),
    "wali_context_init": (None, (P, c_uint32)),
    "wali_context_bind": (None, (P, c_uint32, P, POINTER(Memory), c_uint32)),
    "wali_context_bind_shared": (None, (P, P, P)),
    "wali_context_close": (None, (P,)),
    "wali_table_share": (c_int64, (P, c_int32)),
    "table_lock": (P, (P,)),
    "copy_from": (c_int64, (P, P, c_uint32, P, c_uint64)),
    "copy_to": (c_int64, (P, P, c_uint32, P, c_uint64)),
    "copy_string": (c_int64, (P, P, c_uint32, P, c_uint32)),
    "wali_interruptible": (c_int64, (*[c_int64] * 7, P)),
    "wali_descriptor_set": (c_int64, (P, c_int32, c_int32, c_uint32)),
    "wali_descriptor_host": (c_int32, (P, c_int32)),
    "descriptor_install": (c_int64, (P, c_int64, ctypes.c_uint16)),
    "descriptor_release": (c_int64, (P, c_int32)),
    "wali_interrupt": (None, (P,)),
}


def _machine() -> str:
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        raise UnsupportedPlatform(
            f"wali_core runs on Linux on x86-64 and aarch64 only, not on {sys.platform} {machine}"
        )
    return machine


_NEEDS_WASMTIME: Final = f"wali_core needs wasmtime {OLDEST_WASMTIME} or newer, of a major it knows"
_IS_OUT_OF_DATE: Final = (
    "the native core was built from other sources than these: build it again, "
    "with make setup where this is a checkout, else with pip install ."
)


def _declare(
    library: ctypes.CDLL, symbols: dict[str, tuple[Any, tuple[Any, ...]]], origin: str, advice: str
) -> dict[str, Any]:
    functions = {}
    for name, (result, arguments) in symbols.items():
        function = getattr(library, name, None)
        if function is None:
            raise UnsupportedPlatform(f"{origin} has no {name}: {advice}")
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions


def _find_wasmtime() -> str:
    """The path of wasmtime's shared library: found beside its package, whose code does not run."""
    spec = PathFinder.find_spec("wasmtime")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = f"{folder}/linux-{MACHINE}/_libwasmtime.so"
        if os.path.exists(path):
            return path
    raise UnsupportedPlatform(
        "the package wasmtime is not installed for this machine: pip install wasmtime"
    )


def _address(function: Any) -> int:
    address: int | None = ctypes.cast(function, c_void_p).value
    assert address is not None
    return address


MACHINE: Final = _machine()
WASMTIME_PATH: Final = _find_wasmtime()
CORE_PATH: Final = os.path.join(os.path.dirname(__file__), "native", "libwali.so")

_wasmtime = ctypes.CDLL(WASMTIME_PATH)
W: Final = _declare(_wasmtime, _WASMTIME, WASMTIME_PATH, _NEEDS_WASMTIME)


_libc = ctypes.CDLL(None)
_libc.pthread_getattr_np.argtypes = (ctypes.c_ulong, P)
_PTHREAD_ATTR_BYTES: Final = 64  # 56 on x86-64


def thread_stack() -> int:
    """How large the stack of this thread is, in bytes; 0, if that cannot be known.

    Of the main thread it is not asked: its stack grows, and the C library would look for its limits
    in a file.
    """
    if get_native_id() == os.getpid():
        return 0
    attributes, size = ctypes.create_string_buffer(_PTHREAD_ATTR_BYTES), c_size_t()
    if _libc.pthread_getattr_np(get_ident(), attributes):
        return 0
    _libc.pthread_attr_getstacksize(attributes, byref(size))
    _libc.pthread_attr_destroy(attributes)
    return size.value


def _libc_clock_gettime() -> int:
    return _address(_libc.clock_gettime)


def _names(array: Any) -> tuple[str, ...]:
    """An array of strings that ends with a NULL."""
    found: list[str] = []
    while (name := array[len(found)]) is not None:
        found.append(name.decode())
    return tuple(found)


def returns_are_mispredicted(folder: str = _VULNERABILITIES) -> bool:
    """Does the kernel leave the predictor of returns in disorder (the mitigation *Safe RET*)?"""
    try:
        with open(f"{folder}/spec_rstack_overflow", "rb", buffering=0) as file:
            return b"Safe RET" in file.read()
    except OSError:
        return False  # before Linux 6.5, or no sysfs


class Core:
    """A loaded native core: its functions, and the calls that it offers.

    There is one, ``core``.  Tests load others, broken on purpose.
    """

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise UnsupportedPlatform(
                f"the native core {path} does not load ({error}): build it with pip install ."
            ) from error
        try:
            self._take(_declare(self._library, _CORE, path, _IS_OUT_OF_DATE))
        except (AttributeError, ValueError) as error:  # of a symbol that is not there
            raise UnsupportedPlatform(f"{error}: {_IS_OUT_OF_DATE}") from error

    def _take(self, functions: dict[str, Any]) -> None:
        self.context_init = functions["wali_context_init"]
        self.context_bind = functions["wali_context_bind"]
        self.context_bind_shared = functions["wali_context_bind_shared"]
        self.context_close = functions["wali_context_close"]
        self.table_share = functions["wali_table_share"]
        self.table_lock = functions["table_lock"]
        self.copy_from = functions["copy_from"]
        self.copy_to = functions["copy_to"]
        self.copy_string = functions["copy_string"]
        self.interruptible = functions["wali_interruptible"]
        self.descriptor_set = functions["wali_descriptor_set"]
        self.descriptor_host = functions["wali_descriptor_host"]
        self.descriptor_install = functions["descriptor_install"]
        self.descriptor_release = functions["descriptor_release"]
        self.interrupt = functions["wali_interrupt"]
        self.install_fault_handler = functions["wali_install_fault_handler"]
        self.take_sent_signals = functions["wali_take_sent_signals"]
        self.context_size = c_uint64.in_dll(self._library, "wali_context_size").value
        rest = self.context_size - ctypes.sizeof(Context)
        whole = {"_fields_": (("_rest", ctypes.c_char * rest),)}
        self.make_context: type[Context] = type("WholeContext", (Context,), whole)
        """Makes a ``struct context``, all of it, filled with zeros."""
        self.own_space = c_uint64.in_dll(self._library, "wali_own_space").value
        """Where in a context the memory is that calls of ``wali`` work on."""
        self.actions = (ctypes.c_char * _ACTIONS).in_dll(self._library, "wali_actions")
        """What a program has set for its signals: bytes, all zero to begin with."""
        self.running = (Running * MAX_THREADS).in_dll(self._library, "wali_running")
        self.denied = _address(self._library.wali_denied)
        self.unserved = c_void_p.in_dll(self._library, "wali_unserved").value or 0
        self.async_call = _address(self._library.wali_async)
        self.on_epoch = _address(self._library.wali_on_epoch)
        self.on_poll = _address(self._library.wali_on_poll)
        self._api = (c_void_p * (len(_CORE_NEEDS) + 1))()
        for i, name in enumerate(_CORE_NEEDS):
            self._api[i] = _address(getattr(_wasmtime, name))
        self._api[len(_CORE_NEEDS)] = _libc_clock_gettime()
        functions["wali_init"](self._api)
        jumps_back = ctypes.c_uint32.in_dll(self._library, "wali_jumps_back")
        jumps_back.value = returns_are_mispredicted()
        count = c_uint64.in_dll(self._library, "wali_call_count").value
        rows = (_Call * count).in_dll(self._library, "wali_calls")
        self.calls = {(row.module.decode(), row.name.decode()): row for row in rows}
        self.host_calls = _names((c_char_p * _MOST_CALLS).in_dll(self._library, "wali_host_calls"))
        """The names of the calls that Python serves, in the order of their numbers."""

    def catalogue(self) -> dict[str, str]:
        """Every system call that WALI programs are served, with its group, for policies."""
        return {
            name.removeprefix("SYS_"): row.group.decode()
            for (module, name), row in self.calls.items()
            if module == "wali" and name.startswith("SYS_")
        }


core: Core = Core(CORE_PATH)


class HostCalls:
    """What a host function in Python calls each time, made for speed.

    Nothing is converted: every argument must be a ctypes object of C's type.  Those that do not
    wait keep the GIL.
    """

    def __init__(self) -> None:
        waits, holds = ctypes.CDLL(WASMTIME_PATH), ctypes.PyDLL(WASMTIME_PATH)
        self.context = holds.wasmtime_caller_context
        self.context.restype = c_void_p
        self.export_get = holds.wasmtime_caller_export_get
        self.export_get.restype = c_bool
        self.bind = ctypes.PyDLL(CORE_PATH).wali_context_bind
        self.bind.restype = None
        self.call = waits.wasmtime_func_call_unchecked
        self.call.restype = c_void_p


# --- small things on top --------------------------------------------------------------------------


def text_of(vector: ByteVec) -> str:
    """A name from a module.  What a terminal would obey, or would break a line, is escaped."""
    text = _raw_text(vector)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _raw_text(vector: ByteVec) -> str:
    return (
        ctypes.string_at(vector.data, vector.size).decode("utf-8", "replace") if vector.data else ""
    )


def _message(describe: Any, pointer: int) -> str:
    vector = ByteVec()
    describe(pointer, byref(vector))
    try:
        return _raw_text(vector).rstrip("\0")
    finally:
        W["wasm_byte_vec_delete"](byref(vector))


def error_message(error: int) -> str:
    """The text of a ``wasmtime_error_t``, which is freed."""
    try:
        return _message(W["wasmtime_error_message"], error)
    finally:
        W["wasmtime_error_delete"](error)


def trap_message(trap: int) -> tuple[str, tuple[str, ...]]:
    """The text of a ``wasm_trap_t`` and the names of its frames, innermost first.  It is freed."""
    vector = ByteVec()
    try:
        message = _message(W["wasm_trap_message"], trap)
        W["wasm_trap_trace"](trap, byref(vector))
        frames: Any = (c_void_p * vector.size).from_address(vector.data) if vector.data else ()
        return message, tuple(_frame_name(frame) for frame in frames)
    finally:
        W["wasm_frame_vec_delete"](byref(vector))
        W["wasm_trap_delete"](trap)


def _frame_name(frame: int) -> str:
    name = W["wasmtime_frame_func_name"](frame)
    return text_of(name.contents) if name else f"function {W['wasm_frame_func_index'](frame)}"


def last_line(text: str) -> str:
    """The innermost cause: wasmtime's texts are chains of them, numbered where they are several."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return text
    number, _, cause = lines[-1].partition(": ")
    return cause if number.isdigit() else lines[-1]


def constant(store: int | None, found: Extern) -> int:
    """The value of an exported constant, of the type i32.  Raises ``ModuleError`` for all else."""
    value = Val()
    if found.kind == EXTERN_GLOBAL:
        W["wasmtime_global_get"](store, byref(found.of), byref(value))
    if found.kind != EXTERN_GLOBAL or value.kind:
        raise ModuleError("a constant of the type i32 was expected, and something else is exported")
    return value.of.i32 & 0xFFFFFFFF


def check(error: int | None) -> None:
    """Raise ``ModuleError`` with the text of an error, if there is one."""
    if error:
        raise ModuleError(error_message(error))


def functype(parameters: str, results: str) -> int:
    """A new ``wasm_functype_t``, of types by their letters (``types_of``)."""
    vectors = ByteVec(), ByteVec()
    for vector, letters in zip(vectors, (parameters, results), strict=True):
        types = [W["wasm_valtype_new"](NUMBER_KINDS.index(letter)) for letter in letters]
        W["wasm_valtype_vec_new"](byref(vector), len(types), (c_void_p * len(types))(*types))
    made: int = W["wasm_functype_new"](byref(vectors[0]), byref(vectors[1]))
    return made


def export_of(store: int, instance: Instance, name: str) -> Extern | None:
    """What an instance exports by a name, if it does."""
    found, encoded = Extern(), name.encode()
    present = W["wasmtime_instance_export_get"](
        store, byref(instance), encoded, len(encoded), byref(found)
    )
    return found if present else None


class ImportType:
    """One import or export of a module.  ``functype`` is borrowed from the vector it came in."""

    __slots__ = ("functype", "kind", "memory", "module", "name", "parameters", "results")

    def __init__(self, module: str, name: str, externtype: int) -> None:
        self.module, self.name = module, name
        self.kind: int = W["wasm_externtype_kind"](externtype)
        self.functype: int | None = None
        self.parameters = self.results = ""
        self.memory: tuple[int, int | None, bool] | None = None
        """Of a memory: least and most pages, and whether it is shared."""
        if self.kind == EXTERN_FUNC:
            self.functype = W["wasm_externtype_as_functype_const"](externtype)
            self.parameters = types_of(W["wasm_functype_params"](self.functype))
            self.results = types_of(W["wasm_functype_results"](self.functype))
        elif self.kind == EXTERN_MEMORY:
            self.memory = _memory_type(W["wasm_externtype_as_memorytype_const"](externtype))


def _memory_type(memorytype: int) -> tuple[int, int | None, bool]:
    most = c_uint64()
    bounded = W["wasmtime_memorytype_maximum"](memorytype, byref(most))
    least: int = W["wasmtime_memorytype_minimum"](memorytype)
    return least, most.value if bounded else None, W["wasmtime_memorytype_isshared"](memorytype)


# Compared with, and never freed.  Asking a type for its kind (wasm_valtype_kind) would end the
# whole process where it is a vector, or a reference of the newer sorts.
_NUMBERS: Final = tuple(
    (letter, W["wasm_valtype_new"](kind)) for kind, letter in enumerate(NUMBER_KINDS)
)


def types_of(vector: Any) -> str:
    """The types of a ``wasm_valtype_vec_t``, a letter each: i I f F, ? for all others."""
    size = vector.contents.size
    if not size:
        return ""
    return "".join(map(_letter, (c_void_p * size).from_address(vector.contents.data)))


def _letter(valtype: int | None) -> str:
    same = W["wasmtime_wasm_valtype_equal"]
    return next((letter for letter, number in _NUMBERS if same(valtype, number)), "?")


class TypeVector:
    """The imports or exports of a module; it owns what its items borrow."""

    def __init__(self, module: int, *, imports: bool) -> None:
        self._vector = ByteVec()
        self._imports = imports
        kind = "import" if imports else "export"
        W[f"wasmtime_module_{kind}s"](module, byref(self._vector))
        name, externtype = W[f"wasm_{kind}type_name"], W[f"wasm_{kind}type_type"]
        pointers = (
            (c_void_p * self._vector.size).from_address(self._vector.data)
            if self._vector.data
            else ()
        )
        self.items = tuple(
            ImportType(
                text_of(W["wasm_importtype_module"](p).contents) if imports else "",
                text_of(name(p).contents),
                externtype(p),
            )
            for p in pointers
        )

    def close(self) -> None:
        W[f"wasm_{'import' if self._imports else 'export'}type_vec_delete"](byref(self._vector))
        self.items = ()
