"""Processes beside this one that do one thing over and over: orders go in through a pipe, answers come back in turns.

They import neither torch nor the caller's main module (which multiprocessing's spawn would run again: a script of three
lines needs no guard), ignore Ctrl-C, and end when their input does, however the parent ended. While one works, its next
order comes in and its last answer goes out, so that it waits for nobody.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import signal
import subprocess
import sys
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from cache.errors import DeviceError
from cache.workers.background import BackgroundWriter, Prefetcher
from cache.workers.process_pool import incoming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

T = TypeVar("T")
_ORDERS_EACH = 2  # one to work on and one to go on with
_PIPE_BYTES = 1 << 20  # an order takes megabytes, and every 64 KiB a change of processes


class HelperProcesses:
    """Some such processes: a `with` block around what is asked of them."""

    def __init__(self, what: str, count: int, *arguments: Any, environment: Mapping[str, str] | None = None) -> None:
        """Start `count` of them.

        :param what: a function by its full name; called in each with `arguments`, it returns what is done to an order.
        :param environment: variables for them, where this process has none of that name.
        """
        self._all = [_HelperProcess(what, arguments, environment or {}) for _ in range(count)]

    def __enter__(self) -> Self:
        """Use them."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End them, whatever they are at: nothing is lost, and threads that wait for one hear of it."""
        for aside in self._all:
            aside.end()

    def ask(self, order: Any) -> Any:
        """Have one order answered, before any that are taken in turns.

        :raises Exception: what the work raises; DeviceError: the process was killed.
        """
        self._all[0].order(order)
        return self._all[0].answer()

    def map(self, items: Iterable[T], order_of: Callable[[T], Any]) -> Results[T]:
        """Return an iterator over items and what was answered to each one's order; work begins at once."""
        return Results(self._all, items, order_of)


class Results(Generic[T]):
    """Yields items with their answers, in the items' order, some in advance for every process."""

    def __init__(self, asides: list[_HelperProcess], items: Iterable[T], order_of: Callable[[T], Any]) -> None:
        """Hand out the first orders."""

        def handed_out() -> Iterator[tuple[T, _HelperProcess]]:
            for item, aside in zip(items, itertools.cycle(asides), strict=False):
                aside.order(order_of(item))
                yield item, aside

        self._underway = Prefetcher(handed_out(), _ORDERS_EACH * len(asides) - 1)

    def __iter__(self) -> Iterator[tuple[T, Any]]:
        """Yield in the items' order.

        :raises Exception: what reading the items or the work raises; DeviceError: a process was killed.
        """
        for item, aside in self._underway:
            yield item, aside.answer()


class _HelperProcess:
    """One process and the pipes to it."""

    def __init__(self, what: str, arguments: tuple[Any, ...], environment: Mapping[str, str]) -> None:
        # -P: a cache.py in the current folder is none of ours
        command = [sys.executable, "-P", "-c", "from cache.workers.helper_processes import serve; serve()"]
        # the child finds this package where this process found it
        paths = os.pathsep.join(path for path in sys.path if path)
        variables = {**environment, **os.environ, "PYTHONPATH": paths}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=variables)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._answers = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        for connection in (self._orders, self._answers):
            _widen(connection)
        self._name = what
        self.order((what, arguments))

    def order(self, what: Any) -> None:
        with contextlib.suppress(OSError):  # it has ended: whoever waits for the answer hears why
            self._orders.send(what)

    def answer(self) -> Any:
        try:
            result = self._answers.recv()
        except (EOFError, OSError):
            what = self._name.rpartition(".")[2]
            problem = f"a {what} process ended"
            raise DeviceError(problem, "its memory may have run out; run again to go on") from None
        if isinstance(result, BaseException):
            raise result
        return result

    def end(self) -> None:
        # its pipes are closed when nobody has them any more: a thread that was about to write would hit another file
        self._process.kill()
        self._process.wait()


def _widen(pipe: Connection) -> None:
    """Have a pipe hold more, where the system has such a thing and allows it."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def serve() -> None:
    """Be such a process: orders come in on standard input, answers go out on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders, answers = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever prints must not reach the pipe
    received = incoming(orders)
    try:
        for what, arguments in itertools.islice(received, 1):
            module, _, name = what.rpartition(".")
            work = getattr(importlib.import_module(module), name)(*arguments)
            with BackgroundWriter[Any](partial(_send, answers), 1) as sending:
                for order in Prefetcher(received, 1):
                    sending.put(work(order))
    except Exception as error:  # raised in the parent
        _send(answers, iter([error]))


def _send(answers: Connection, done: Iterator[Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and orders end too
        for answer in done:
            answers.send(answer)
    for _ in done:
        continue
