"""Processes and messages: a pipe per process, nothing shared, so that one that dies takes nothing along.

A queue that several processes read from is guarded by a lock, and a process that is killed while it waits keeps it: the
others wait for ever. With a pipe each, the end of a process is the end of its pipe, which is received like a message.
Work is sent when it is requested, so that a busy process is never written to.

Processes are spawned: a fork would share CUDA's state and threads' locks. They ignore a terminal's Ctrl-C, which goes
to all processes at once: the pool's owner receives it and asks them to end, once.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from cache.devices import lost_device

_PATIENCE_SECONDS = 15.0
_END_SECONDS = 2.0  # to end in, for a process whose pipe has ended


@dataclass(frozen=True)
class Request:
    """A process is free, and will read what it is sent."""


@dataclass(frozen=True)
class Finished:
    """A process has ended; `result` is what its work returned."""

    result: Any


@dataclass(frozen=True)
class ProcessFailed:
    """A process ended through no fault of its work: killed, or its device failed."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class JobFailed:
    """The work cannot be done: the two lines of its error, or no remedy and a trace."""

    problem: str
    remedy: str | None


def incoming(connection: Connection) -> Iterator[Any]:
    """Yield what another process sends, until its end is closed.

    An error of the pipe is its end; one of unpickling, an OSError too (a library that cannot be loaded), is raised.
    """
    while True:
        try:
            sent = connection.recv_bytes()
        except (EOFError, OSError):
            return
        yield pickle.loads(sent)


class Channel:
    """A process's end of its pipe, for all its threads."""

    def __init__(self, connection: Connection) -> None:
        """Send and receive through `connection`."""
        self._connection, self._received = connection, incoming(connection)
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Send to the owner of the pool, if there still is one."""
        with self._sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)

    def poll(self, seconds: float) -> bool:
        """Return whether `receive` returns at once, waiting so long for it."""
        try:
            return self._connection.poll(seconds)
        except OSError:
            return True

    def request(self) -> Any:
        """Ask for something to do and return it; None if there is nothing more, or nobody to ask."""
        self.send(Request())
        return self.receive()

    def receive(self) -> Any:
        """Return what is sent; None if nobody is there any more.

        :raises Exception: what unpickling it raises.
        """
        return next(self._received, None)


@dataclass
class _Process:
    process: Any
    connection: Connection | None
    device: str


class ProcessPool:
    """Runs `work(channel, *arguments)` in one process per device and receives their messages.

    The last message of a process is `Finished`, `ProcessFailed` or `JobFailed`. Leaving the `with` block ends all.
    """

    def __init__(self, work: Callable[..., Any], devices: Sequence[str], arguments: Sequence[tuple[Any, ...]]) -> None:
        """Start the processes, all at once: each takes seconds to import what it needs."""
        self._work = work
        self._processes: list[_Process] = []
        try:
            for device, _ in zip(devices, arguments, strict=True):
                self._spawn(device)
            # not while starting: what is larger than a pipe's buffer would be waited for until that process reads it
            for number, given in enumerate(arguments):
                self.send(number, given)
        except BaseException:  # there is no `with` block yet that would end those that were started
            self.__exit__()
            raise

    def start(self, device: str, arguments: tuple[Any, ...]) -> int:
        """Start one more process; return its number."""
        self._spawn(device)
        self.send(len(self._processes) - 1, arguments)
        return len(self._processes) - 1

    def _spawn(self, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_run, args=(self._work, device, theirs), daemon=True)
        with _interrupts_blocked():
            process.start()
        theirs.close()  # the pipe ends with the process
        self._processes.append(_Process(process, ours, device))

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *error: object) -> None:
        """Ask every process to end, which writes what was computed; after a while, end it."""
        for one in self._processes:
            if one.connection is not None:
                one.process.terminate()
                one.connection.close()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for one in self._processes:
            one.process.join(max(0.0, deadline - time.monotonic()))
            if one.process.is_alive():
                one.process.kill()
                one.process.join()

    def receive(self, seconds: float) -> list[tuple[int, Any]]:
        """Return messages, each with the number of its process; none if nothing comes for `seconds`."""
        open_ones = {one.connection: i for i, one in enumerate(self._processes) if one.connection is not None}
        ready: list[Any] = wait(list(open_ones), seconds)
        if not ready:  # a child of a dead process may hold its pipe open: ask the system
            ready = [pipe for pipe, i in open_ones.items() if self._processes[i].process.exitcode is not None]
        return [(open_ones[pipe], self._message(self._processes[open_ones[pipe]], pipe)) for pipe in ready]

    def send(self, number: int, message: Any) -> None:
        """Send to a process; that it has ended will be received."""
        connection, pickled = self._processes[number].connection, pickle.dumps(message)
        with contextlib.suppress(OSError):
            if connection is not None:
                connection.send_bytes(pickled)

    def _message(self, one: _Process, connection: Connection) -> Any:
        try:
            if not connection.poll():
                raise EOFError
            message = connection.recv()
        except (EOFError, OSError):
            message = _reason_of_the_end(one)
        if isinstance(message, Finished | ProcessFailed | JobFailed):
            connection.close()
            one.connection = None
        if isinstance(message, ProcessFailed):  # its rows are written; a failed device may keep it from ending
            one.process.kill()
            one.process.join()
        return message


def _reason_of_the_end(one: _Process) -> ProcessFailed:
    """Say why a process ended without a message."""
    process = one.process
    process.join(_END_SECONDS)
    code = process.exitcode
    if code is None:
        how = "closed its pipe and did not end"
    elif code < 0:
        how = f"was killed by signal {-code} ({_signal_name(-code)})"
    else:
        how = f"ended with exit code {code}"
    remedy = "its memory may have run out: run again to go on, with fewer processes" if code else "run again to go on"
    return ProcessFailed(f"the process on {one.device} {how}", remedy)


def _signal_name(number: int) -> str:
    """Return a signal's name; real-time signals have none but a description."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return signal.strsignal(number) or "unknown"


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keep interrupts from processes started in a `with` block until they have decided what to do with one.

    Blocked, not ignored: one that comes meanwhile still reaches this process.
    """
    resource_tracker.ensure_running()  # which unblocks interrupts when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(work: Callable[..., Any], device: str, connection: Connection) -> None:
    """Be a process of a pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(50_000)  # importing torch makes objects that stay: at 700 they are looked through often
    channel = Channel(connection)
    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            arguments = channel.receive()
            if arguments is not None:
                channel.send(Finished(work(channel, *arguments)))
        except Exception as error:
            channel.send(_last_message(error, device))
    gc.freeze()  # the interpreter need not look through all that is left before it ends: 0.4 s with torch


def _last_message(error: Exception, device: str) -> ProcessFailed | JobFailed:
    lost = lost_device(error, device)
    if lost is not None:
        return ProcessFailed(lost.problem, lost.remedy)
    remedy = getattr(error, "remedy", None)
    if isinstance(remedy, str):
        return JobFailed(str(error), remedy)
    return JobFailed("".join(traceback.format_exception(error)), None)


def _interrupt(number: int, frame: object) -> None:
    """Turn the first polite request to end into an interrupt, so that what was computed is written."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
