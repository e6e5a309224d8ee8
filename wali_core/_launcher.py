"""The process that the WALI programs of a runtime are forked from.

A new interpreter needs ten times as long to start a program as a process that has all loaded needs
to fork one.  This one has a single thread, now and for ever: it never compiles (the modules come
compiled), so that what it forks is whole.  It is told what to do through a socket, and ends when
that is closed and the last program is gone.

For every program there are two processes: a supervisor, which nothing of the program's survives,
and the program.  Should a supervisor be killed, this process ends what that has left.
"""

from __future__ import annotations

import _socket
import gc
import os
import select
from functools import partial

from wali_core import _child
from wali_core._runtime import Runtime
from wali_core.processes._order import MOST_MODULES, Descriptors, receive
from wali_core.processes._supervisor import (
    Deaths,
    adopt_orphans,
    end_descendants,
    leave_signals_to_others,
    supervise,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from wali_core._engine import Module
    from wali_core.processes._order import Order, Setting

OWN_STACK: Final = 2 << 20
"""How much of its process's stack a program may use, in bytes."""


def main(number: int) -> NoReturn:
    """Serve the socket with that number, the only descriptor that was passed on besides 0 to 2."""
    orders = _socket.socket(fileno=number)
    try:
        os.fstat(2)
    except OSError:
        os.open(os.devnull, os.O_WRONLY)  # as 2, the lowest that is free
    os.closerange(number + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    leave_signals_to_others()
    adopt_orphans()
    first = receive(orders)
    if first is None:
        os._exit(0)
    Launcher(orders, first[0]).serve()


class Launcher:
    """What is in that process."""

    def __init__(self, orders: _socket.socket, setting: Setting) -> None:
        self._orders: _socket.socket | None = orders
        self._deaths = Deaths()
        self._supervisors: set[int] = set()
        self._modules: dict[tuple[str, str], Module] = {}
        self._policy, self._allow_all = setting.policy, setting.allow_all
        self._runtime = Runtime(
            policy=setting.policy,
            allow_all=setting.allow_all,
            cache=setting.cache or False,
            stack=OWN_STACK,
        )
        _child.preload(confined=not setting.allow_all)
        self._runtime.executables(compiling=False)  # the embedder has compiled them
        if not setting.allow_all:
            from wali_core._confine import bound_privileges

            bound_privileges(setting.policy)
        # What is there now is never garbage; and looking at it would copy its pages in each child.
        gc.collect()
        gc.freeze()

    def serve(self) -> NoReturn:
        """Start a program for each order, to the end of orders and programs."""
        while self._orders or self._supervisors:
            poller = select.poll()
            poller.register(self._deaths.read_end, select.POLLIN)
            if self._orders:
                poller.register(self._orders, select.POLLIN)
            ready = {fd for fd, _ in poller.poll()}
            if self._deaths.read_end in ready:
                self._bury()
            if self._orders and self._orders.fileno() in ready:
                given = receive(self._orders)
                if given is None:
                    self._orders.close()
                    self._orders = None
                else:
                    order, (artefact, *descriptors) = given
                    self._launch(order, artefact, Descriptors(*descriptors))
        os._exit(0)

    def _launch(self, order: Order, artefact: int, descriptors: Descriptors) -> None:
        try:
            module = self._module(order, artefact)
            self._foresee(order)
            pid = os.fork()
        except Exception as error:  # noqa: BLE001 - for who has ordered it; others go on
            _child.answer(descriptors.answer, error)
        else:
            if pid == 0:
                self._supervise(order, descriptors, module)
            self._supervisors.add(pid)
        descriptors.close()

    def _foresee(self, order: Order) -> None:
        """Have at hand what will confine the program."""
        if not self._allow_all:
            from wali_core._confine import foresee

            foresee(self._policy, order.grants, self._runtime.engine.core)

    def _module(self, order: Order, artefact: int) -> Module:
        try:
            key = order.key, order.origin  # which errors name
            module = self._modules.get(key)
            if module is None:
                module = self._runtime.engine.polling().load_artefact(artefact, order.origin)
                while len(self._modules) >= MOST_MODULES:
                    del self._modules[next(iter(self._modules))]
                self._modules[key] = module
            return module
        finally:
            os.close(artefact)

    def _supervise(self, order: Order, descriptors: Descriptors, module: Module) -> NoReturn:
        """Go on as the supervisor of one program."""
        self._deaths.close()
        if self._orders:
            self._orders.close()
        control = _socket.socket(fileno=descriptors.control)
        run = partial(_child.run, self._runtime, module, order, descriptors)
        supervise(control, run, partial(descriptors.close, but=[descriptors.control]))

    def _bury(self) -> None:
        self._deaths.clear()
        failed = False
        for supervisor in tuple(self._supervisors):
            pid, status = os.waitpid(supervisor, os.WNOHANG)
            if pid:
                self._supervisors.remove(supervisor)
                failed |= status != 0
        if failed:
            end_descendants(but=self._supervisors)
