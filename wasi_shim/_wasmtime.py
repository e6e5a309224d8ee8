"""WASI for programs that build their own ``wasmtime.Linker`` and ``Store``: in place of wasmtime's.

``WasiConfig`` has the names of ``wasmtime.WasiConfig``, and ``define_wasi`` does what
``linker.define_wasi()`` and ``store.set_wasi(config)`` do together.  How the two look at each other
through wasmtime's C objects is the business of ``wali_core.lowlevel``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import wasmtime

from wali_core import WaliError
from wali_core.lowlevel import ForeignGuest, ForeignShim, Preopen, trap_of
from wasi_shim._abi import WasiAbi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Path = str | bytes | os.PathLike[str]
    CustomOutput = Callable[[bytes], object]

_EXIT = "proc_exit"
_CHUNK = 1 << 16


class WasiConfig:
    """What a guest is given: the names are those of ``wasmtime.WasiConfig``, and so is the default.

    That is: no arguments, no environment, no directories, an empty stdin, and output that goes
    nowhere.  It may serve several stores, and may be changed in between.
    """

    def __init__(self) -> None:
        self.argv: list[str] = []
        self.strict_rights = False
        """Ours alone: rights that the guest does not ask for when it opens something it does not
        get.  wasmtime's own WASI has no rights."""
        self._env: list[tuple[str, str]] = []
        self._preopens: dict[str, Preopen] = {}
        self._streams: list[int | None] = [None, None, None]
        self._custom: dict[int, CustomOutput] = {}
        self._owned: dict[int, int] = {}

    def inherit_argv(self) -> None:
        """Give it this process's command line."""
        self.argv = list(sys.orig_argv)

    @property
    def env(self) -> list[tuple[str, str]]:
        """Pairs of names and values."""
        return self._env

    @env.setter
    def env(self, pairs: Iterable[Iterable[str]]) -> None:
        self._env = [(name, value) for name, value in pairs]

    def inherit_env(self) -> None:
        """Give it this process's whole environment."""
        self._env = list(os.environ.items())

    def _file(self, number: int, path: Path, flags: int) -> None:
        try:
            fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
        except OSError as error:
            name = ("stdin", "stdout", "stderr")[number]
            raise wasmtime.WasmtimeError(f"failed to set {name} file: {error}") from error
        self._set(number, fd)
        self._owned[number] = fd

    def _set(self, number: int, fd: int | None) -> None:
        if number in self._owned:
            os.close(self._owned.pop(number))
        self._custom.pop(number, None)
        self._streams[number] = fd

    def _custom_output(self, number: int, callback: CustomOutput) -> None:
        self._set(number, None)
        self._custom[number] = callback

    def inherit_stdin(self) -> None:
        """Give it this process's stdin."""
        self._set(0, 0)

    def inherit_stdout(self) -> None:
        """Give it this process's stdout."""
        self._set(1, 1)

    def inherit_stderr(self) -> None:
        """Give it this process's stderr."""
        self._set(2, 2)

    # Set and never read, as with wasmtime.
    stdin_file = property(
        fset=lambda self, path: self._file(0, path, os.O_RDONLY),
        doc="A file to read from.  ``WasmtimeError`` where it cannot be opened.",
    )
    stdout_file = property(
        fset=lambda self, path: self._file(1, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        doc="A file to write to, made or emptied.  ``WasmtimeError`` where it cannot be.",
    )
    stderr_file = property(
        fset=lambda self, path: self._file(2, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        doc="As ``stdout_file``.",
    )
    stdout_custom = property(
        fset=lambda self, callback: self._custom_output(1, callback),
        doc="Called with what is written, in the guest's own thread; what it raises is raised.",
    )
    stderr_custom = property(
        fset=lambda self, callback: self._custom_output(2, callback),
        doc="As ``stdout_custom``.",
    )

    def preopen_dir(
        self,
        path: Path,
        guest_path: str,
        fs_mutable: object = True,  # noqa: FBT002 - the name and place that wasmtime gave it
        file_perms: object = None,
        *,
        dir_perms: object = None,
    ) -> None:
        """Grant a directory of the host's as ``guest_path``; read-only unless ``fs_mutable``.

        The permissions of older wasmtimes are understood as well: a directory is writable where
        both ``dir_perms`` and ``file_perms`` are.  Raises ``WasmtimeError`` for what is none.
        """
        allowed = (fs_mutable if dir_perms is None else dir_perms, file_perms)
        writable = all(map(_writes, allowed))
        preopen = Preopen(guest_path, os.path.abspath(os.fsdecode(path)), read_only=not writable)
        try:
            fd, _ = preopen.open()
        except WaliError as error:
            raise wasmtime.WasmtimeError(f"failed to add preopen dir: {error}") from error
        os.close(fd)
        self._preopens[guest_path] = preopen

    def settings(
        self,
    ) -> tuple[
        list[str],
        list[tuple[str, str]],
        list[Preopen],
        list[int | None],
        dict[int, CustomOutput],
    ]:
        """Arguments, environment, directories, the three streams, and what is called for some."""
        preopens = list(self._preopens.values())
        return self.argv, self._env, preopens, list(self._streams), dict(self._custom)

    def close(self) -> None:
        """Close the files that it has opened, whose streams are empty and go nowhere from then on.

        Stores that have it keep theirs.
        """
        for number in list(getattr(self, "_owned", ())):
            self._set(number, None)

    def __del__(self) -> None:
        self.close()


def _writes(permission: object) -> bool:
    """Does a permission allow it: None, a truth value, or ``DirPerms`` and ``FilePerms``?"""
    name = getattr(permission, "name", None)
    return permission is None or (bool(permission) if name is None else "WRITE" in name)


class Wasi:
    """What ``define_wasi`` has made for one store.

    It must not hold the store: it lives as long as that does.
    """

    def __init__(self, store: wasmtime.Store, config: WasiConfig) -> None:
        self._engine = store.engine
        self._raiser = _Raiser(store.engine)
        args, env, preopens, streams, custom = config.settings()
        self._outputs = {number: _Output(call) for number, call in custom.items()}
        for number, output in self._outputs.items():
            streams[number] = output.fd
        self.guest = ForeignGuest(
            shim_for(store.engine),
            _address(store),
            args=args,
            env=env,
            preopens=preopens,
            stdio=[_devnull() if fd is None else fd for fd in streams],
            fail=self._fail,
            exited=_exit_trap,
            after=self._pass_on if self._outputs else None,
            strict_rights=config.strict_rights,
        )

    def bind(self, store: wasmtime.Store, instance: wasmtime.Instance) -> None:
        """For ``define_wasi(..., direct=True)``: whose memory the functions work on from now on."""
        scratch = wasmtime.Linker(self._engine)
        scratch.define_instance(store, "guest", instance)
        try:
            self.guest.bind_memory(_address(scratch), "guest")
        except WaliError as error:
            raise wasmtime.WasmtimeError(str(error)) from error

    def _fail(self, error: BaseException) -> int:
        return self._raiser.trap(error, self.guest.context)

    def _pass_on(self) -> None:
        for output in self._outputs.values():
            output.pass_on()


class _Raiser:
    """Raises through Wasm, as wasmtime's own class does for what a function of Python's raises."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        pending = self._pending = list[BaseException]()

        def raise_it() -> None:  # is kept by the linker, so it must not keep that
            raise pending.pop()

        self._linker = wasmtime.Linker(engine)
        self._linker.define_func("", "raise", wasmtime.FuncType([], []), raise_it)

    def trap(self, error: BaseException, context: int) -> int:
        """The address of the trap that becomes the exception where wasmtime was called."""
        self._pending.append(error)
        return trap_of(_address(self._linker), context, "", "raise")


class _Output:
    """A file in memory that a guest writes to, and what gets it after every call."""

    def __init__(self, call: CustomOutput) -> None:
        self._call = call
        self.fd = os.memfd_create("output", os.MFD_CLOEXEC)

    def pass_on(self) -> None:
        """Give what is there, and begin anew."""
        end, at = os.fstat(self.fd).st_size, 0
        if not end:
            return
        pieces = []
        try:
            while at < end:
                at = os.lseek(self.fd, at, os.SEEK_DATA)  # a guest may have sought far ahead
                pieces.append(os.pread(self.fd, _CHUNK, at))
                at += len(pieces[-1])
        except OSError:
            pass  # ENXIO: a hole up to the end
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self._call(b"".join(pieces))

    def __del__(self) -> None:
        os.close(self.fd)


def define_wasi(
    linker: wasmtime.Linker,
    store: wasmtime.Store,
    config: WasiConfig | None = None,
    *,
    direct: bool = False,
) -> Wasi:
    """Define WASI in ``linker``, for modules that are instantiated in ``store``.

    It stands for ``linker.define_wasi()`` and ``store.set_wasi(config)``.  A linker may be used
    with several stores: each needs a call of its own.  A guest's ``proc_exit`` is a
    ``wasmtime.ExitTrap``, as with wasmtime's own WASI.

    ``direct`` leaves out what looks for the memory of the calling module, which costs
    microseconds with every call: then the linker is for this store alone, and the memory must be
    named, by ``bind`` of what is returned, before the module makes its first call.

    Raises ``WasmtimeError``.
    """
    if linker.engine is not store.engine:
        raise wasmtime.WasmtimeError("the linker and the store are of different engines")
    config = config or WasiConfig()
    if direct and config.settings()[-1]:
        raise wasmtime.WasmtimeError("with direct=True nobody could call stdout_custom in time")
    try:
        shim = shim_for(store.engine)
        if linker not in _defined:
            shim.define(_address(linker), (_EXIT,) if direct else None)
            _defined.add(linker)
        wasi = Wasi(store, config)
        if direct:
            wasi.guest.define(_address(linker), (_EXIT,))
    except WaliError as error:
        raise wasmtime.WasmtimeError(str(error)) from error
    return wasi


_defined: WeakSet[wasmtime.Linker] = WeakSet()
_shims: WeakKeyDictionary[wasmtime.Engine, ForeignShim] = WeakKeyDictionary()
_nothing: list[int] = []


def shim_for(engine: wasmtime.Engine) -> ForeignShim:
    """The shim as this engine has compiled it."""
    found = _shims.get(engine)
    if found is None:
        found = _shims[engine] = ForeignShim(_address(engine), WasiAbi())
    return found


def _address(managed: Any) -> int:
    """Where the C object behind one of wasmtime's classes lies."""
    return ctypes.cast(managed.ptr(), ctypes.c_void_p).value or 0


def _devnull() -> int:
    if not _nothing:
        _nothing.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
    return _nothing[0]


def _exit_trap(status: int) -> wasmtime.ExitTrap:
    trap = wasmtime.ExitTrap(f"Exited with i32 exit status {status}")
    trap.code = status
    return trap
