"""Processes that are told things and say things, a pipe each; nothing is shared, so one that dies takes nothing along.

A queue that several processes read from is guarded by a lock, and one that is killed while it waits keeps it: the
others wait for ever. With a pipe each, the end of a process is the end of its pipe, and is heard like any other news.
The price is that somebody must listen: whoever deals out the work does, and sends a piece when one is asked for, so
that a process that is busy is never written to. What a process begins with is sent when all have been started.

Processes are spawned: a fork would share CUDA's state and threads' locks. They do not hear a terminal's Ctrl-C, which
goes to all of its processes at once: whoever deals out the work hears it and asks them to end, once.

What comes through a pipe from another process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from cache.devices import lost_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection


def incoming(connection: Connection) -> Iterator[Any]:
    """Yield what comes in, until the other end is closed.

    An error of the pipe is its end; one of unpickling, an OSError too (a library that cannot be loaded), is raised.
    """
    while True:
        try:
            sent = connection.recv_bytes()
        except (EOFError, OSError):
            return
        yield pickle.loads(sent)


_PATIENCE_SECONDS = 15.0
_END_SECONDS = 2.0  # to end in, for a process whose pipe has ended


@dataclass(frozen=True)
class Request:
    """A process waits for something to do, and will read what it is told."""


@dataclass(frozen=True)
class Finished:
    """A process has finished; `result` is what its work returned."""

    result: Any


@dataclass(frozen=True)
class ProcessFailed:
    """A process ended without finishing through no fault of its work: killed, or its device failed."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class JobFailed:
    """What the process was given to do cannot be done: the two lines of its error, or no remedy and a trace."""

    problem: str
    remedy: str | None


class Channel:
    """A process's end of its pipe, for all its threads."""

    def __init__(self, connection: Connection) -> None:
        """Speak through `connection`."""
        self._connection, self._told = connection, incoming(connection)
        self._speaking = threading.Lock()

    def send(self, what: Any) -> None:
        """Tell the listener; a listener that is gone is told nothing."""
        with self._speaking, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(what)

    def request(self) -> Any:
        """Ask for something to do and return it; None if there is nothing more, or nobody to ask."""
        self.send(Request())
        return self.receive()

    def receive(self) -> Any:
        """Return what one is told; None if nobody is there any more.

        :raises Exception: what unpickling it raises.
        """
        return next(self._told, None)


@dataclass
class _Worker:
    process: Any
    connection: Connection | None


class ProcessPool:
    """Runs `work(channel, *arguments)` in one process per device and receives their messages.

    The last message of a process is `Finished`, `ProcessFailed` or `JobFailed`. Leaving the `with` block ends all.
    """

    def __init__(self, work: Callable[..., Any], devices: Sequence[str], arguments: Sequence[tuple[Any, ...]]) -> None:
        """Start the processes, all at once: each takes seconds to import what it needs."""
        context = multiprocessing.get_context("spawn")
        self._devices = devices
        self._members: list[_Worker] = []
        try:
            for device, _ in zip(devices, arguments, strict=True):
                ours, theirs = context.Pipe()
                process = context.Process(target=_run_process, args=(work, device, theirs), daemon=True)
                with _interrupts_blocked():
                    process.start()
                theirs.close()  # the pipe ends with the process
                self._members.append(_Worker(process, ours))
            # not with the process: what is larger than a pipe's buffer would be waited for until that process reads it
            for number, given in enumerate(arguments):
                self.send(number, given)
        except BaseException:  # there is no `with` block yet that would end those that were started
            self.__exit__()
            raise

    def __enter__(self) -> ProcessPool:
        """Use it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ask whoever is still there to end, which writes what was computed; after a while, end them."""
        for member in self._members:
            if member.connection is not None:
                member.process.terminate()
                member.connection.close()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for member in self._members:
            member.process.join(max(0.0, deadline - time.monotonic()))
            if member.process.is_alive():
                member.process.kill()
                member.process.join()

    def receive(self, seconds: float) -> list[tuple[int, Any]]:
        """Return what was said, with the number of the process that said it; nothing if none speaks for `seconds`."""
        talking = {member.connection: i for i, member in enumerate(self._members) if member.connection is not None}
        ready = wait(list(talking), seconds)
        if not ready:  # a child of a dead process's may hold its pipe open: ask the system
            ready = [line for line, i in talking.items() if self._members[i].process.exitcode is not None]
        return [(talking[line], self._receive_from(talking[line], line)) for line in ready]  # type: ignore[index, arg-type]

    def send(self, number: int, what: Any) -> None:
        """Tell a process that listens; that it is gone will be heard."""
        connection, told = self._members[number].connection, pickle.dumps(what)
        with contextlib.suppress(OSError):
            if connection is not None:
                connection.send_bytes(told)

    def _receive_from(self, number: int, connection: Connection) -> Any:
        try:
            if not connection.poll():
                raise EOFError
            said = connection.recv()
        except (EOFError, OSError):
            said = self._reason_it_ended(number)
        if isinstance(said, Finished | ProcessFailed | JobFailed):
            connection.close()
            self._members[number].connection = None
        if isinstance(
            said, ProcessFailed
        ):  # what it computed is written; a device that has failed may keep it from ending
            self._members[number].process.kill()
            self._members[number].process.join()
        return said

    def _reason_it_ended(self, number: int) -> ProcessFailed:
        """Say why a process went without a word."""
        process = self._members[number].process
        process.join(_END_SECONDS)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
            how = "closed its pipe and did not end"
        elif code < 0:
            how = f"was killed by signal {-code} ({_name_of(-code)})"
        else:
            how = f"ended with exit code {code}"
        remedy = (
            "its memory may have run out: run again to go on, with fewer processes" if code else "run again to go on"
        )
        return ProcessFailed(f"the process on {self._devices[number]} {how}", remedy)


def _name_of(number: int) -> str:
    """Return a signal's name; real-time signals have none but a description."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return signal.strsignal(number) or "unknown"


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Have processes started in a `with` block wait with an interrupt until they say what they do with it.

    Blocked, not ignored: one that comes meanwhile still reaches this process.
    """
    resource_tracker.ensure_running()  # which unblocks interrupts when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_process(work: Callable[..., Any], device: str, connection: Connection) -> None:
    """Be a process of a pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(connection)
    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            given = channel.receive()
            if given is not None:
                channel.send(Finished(work(channel, *given)))
        except Exception as error:
            channel.send(_last_message(error, device))


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
