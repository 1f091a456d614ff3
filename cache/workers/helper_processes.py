"""Processes that compute one function over and over: messages go in through a pipe, results come back in order.

They import neither torch nor the caller's main module (which multiprocessing's spawn would run again: a script of three
lines needs no guard), ignore Ctrl-C, and end when their input does, however the parent ended. While one works, its next
message comes in and its last result goes out, so that it waits for nobody.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self, TypeVar

from cache.errors import DeviceError
from cache.workers.background import BackgroundWriter, Prefetcher
from cache.workers.process_pool import incoming

T = TypeVar("T")
_MESSAGES_EACH = 2  # one to work on and one to go on with
_PACKAGES = str(Path(__file__).resolve().parents[2])
_PIPE_BYTES = 1 << 20  # a message takes megabytes, and every 64 KiB a change of processes


class HelperProcesses:
    """Some such processes: a `with` block around `call` and `map`."""

    def __init__(self, what: str, count: int, *arguments: Any, environment: Mapping[str, str] | None = None) -> None:
        """Start `count` of them.

        :param what: a function by its full name; called in each process with `arguments`, it returns the function that
            is applied to every message.
        :param environment: variables for them, where this process has none of that name.
        """
        self._all = [_HelperProcess(what, arguments, environment or {}) for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End them, whatever they are at: nothing is lost, and threads that wait for one get an error."""
        for process in self._all:
            process.end()

    def call(self, message: Any) -> Any:
        """Return the result of one message, before any that `map` takes.

        :raises Exception: what the work raises; DeviceError: the process was killed.
        """
        self._all[0].send(message)
        return self._all[0].receive()

    def map(self, items: Iterable[T], message_of: Callable[[T], Any]) -> Iterator[tuple[T, Any]]:
        """Return an iterator over items, in their order, each with the result of its message; work begins at once.

        :raises Exception: what reading the items or the work raises; DeviceError: a process was killed.
        """

        def sent() -> Iterator[tuple[T, _HelperProcess]]:
            for item, process in zip(items, itertools.cycle(self._all), strict=False):
                process.send(message_of(item))
                yield item, process

        in_progress = Prefetcher(sent(), _MESSAGES_EACH * len(self._all) - 1)
        return ((item, process.receive()) for item, process in in_progress)


class _HelperProcess:
    """One process and the pipes to it."""

    def __init__(self, what: str, arguments: tuple[Any, ...], environment: Mapping[str, str]) -> None:
        # -P: a cache.py in the current folder is none of ours
        command = [sys.executable, "-P", "-c", "from cache.workers.helper_processes import serve; serve()"]
        # the child finds this package where this process found it, whatever lies beside the user's script
        paths = os.pathsep.join((_PACKAGES, *filter(None, sys.path)))
        variables = {**environment, **os.environ, "PYTHONPATH": paths}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=variables)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._messages = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._results = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        for connection in (self._messages, self._results):
            _widen(connection)
        self._name = what
        self.send((what, arguments))

    def send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # it has ended: whoever waits for the result gets the reason
            self._messages.send(message)

    def receive(self) -> Any:
        try:
            result = self._results.recv()
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
    """Be such a process: messages come in on standard input, results go out on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    messages, results = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever prints must not reach the pipe
    received = incoming(messages)
    try:
        for what, arguments in itertools.islice(received, 1):
            module, _, name = what.rpartition(".")
            work = getattr(importlib.import_module(module), name)(*arguments)
            with BackgroundWriter[Any](partial(_send, results), 1) as sending:
                for message in Prefetcher(received, 1):
                    sending.put(work(message))
    except Exception as error:  # raised in the parent
        _send(results, iter([error]))


def _send(results: Connection, done: Iterator[Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and messages end too
        for result in done:
            results.send(result)
    for _ in done:
        continue
