"""One process a device: chunks are dealt out, every process writes its own shards, nobody locks anything.

With one device the work happens here. With several, spawned processes (a fork would share CUDA's state and threads'
locks) start with a piece of work each and take further ones from a queue whenever they are free, so that an uneven
share costs at most one piece; none is started that would find nothing to do. Pieces are cut from sorted texts, so
that texts which begin alike stay together. A process that fails ends all; the others' committed work stays.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import signal
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.ahead import Ahead
from cache.errors import CacheError
from cache.report import Tally
from cache.worker import Chunk, Job, run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_PIECE = 4096
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 15.0


def run_jobs(job: Job, devices: Sequence[str], chunks: Iterable[Chunk], on_batch: Callable[[int, str], None]) -> Tally:
    """Compute and store `chunks` on `devices`, a process each if there are several.

    :raises CacheError: what a process raises, or that one was killed.
    """
    if len(devices) == 1:
        return run_job(replace(job, device=devices[0]), chunks, on_batch)
    pieces = Ahead(_pieces(chunks, len(devices)), 1)
    crew = _Crew(job, devices, list(itertools.islice(pieces, len(devices))))
    try:
        return crew.run(pieces, on_batch)
    finally:
        crew.dismiss()


class _Crew:
    """The processes, the queue that feeds them, and the one that they report to."""

    def __init__(self, job: Job, devices: Sequence[str], first: list[Chunk]) -> None:
        context = multiprocessing.get_context("spawn")
        self._work: Any = context.Queue(2 * len(devices))
        self._news: Any = context.Queue()
        threads = max(1, (os.cpu_count() or 1) // len(devices)) if devices[0] == "cpu" else None
        jobs = [replace(job, device=device, threads=threads, share=len(first)) for device in devices[: len(first)]]
        self._processes = [
            context.Process(target=_serve, args=(each, piece, self._work, self._news), daemon=True)
            for each, piece in zip(jobs, first, strict=True)
        ]
        for process in self._processes:
            process.start()
        self._tally = Tally()
        self._running = len(first)

    def run(self, pieces: Iterator[Chunk], on_batch: Callable[[int, str], None]) -> Tally:
        """Deal `pieces` out and wait for every process to finish."""
        for item in itertools.chain(pieces, [None] * len(self._processes)):
            while not self._offer(item):
                self._listen(on_batch)
            self._listen(on_batch, wait=False)
        while self._running:
            self._listen(on_batch)
        return self._tally

    def _offer(self, item: Chunk | None) -> bool:
        try:
            self._work.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            return False
        return True

    def _listen(self, on_batch: Callable[[int, str], None], *, wait: bool = True) -> None:
        """Take in what the processes say: progress, a finished tally, or the exception that ends everything."""
        try:
            while True:
                said = self._news.get(timeout=_POLL_SECONDS) if wait else self._news.get_nowait()
                wait = False
                if isinstance(said, BaseException):
                    raise said
                if isinstance(said, Tally):
                    self._tally.add(said)
                    self._running -= 1
                else:
                    on_batch(*said)
        except queue.Empty:
            killed = [process for process in self._processes if process.exitcode not in (None, 0)]
            if killed:
                raise CacheError(
                    f"an embedding process ended with exit code {killed[0].exitcode}",
                    "its memory may have run out; run again to go on, with fewer processes",
                ) from None

    def dismiss(self) -> None:
        """Let the processes end, by force if they do not."""
        self._work.cancel_join_thread()  # what nobody took is not worth waiting for
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for process in self._processes:
            if self._running:  # an error or an interrupt: nobody waits for their work any more
                process.terminate()
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()


def _pieces(chunks: Iterable[Chunk], processes: int) -> Iterator[Chunk]:
    """Cut chunks into pieces of texts that are neighbours in sorted order."""
    for chunk in chunks:
        order = sorted(range(len(chunk.texts)), key=chunk.texts.__getitem__)
        count = max(processes, -(-len(order) // _PIECE))
        for part in np.array_split(np.array(order, np.int64), count):
            if len(part):
                yield chunk.take(part)


def _serve(job: Job, first: Chunk, work: Any, news: Any) -> None:
    """Run in a process of its own: compute `first` and what comes, until None comes or the parent is gone."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        news.put(run_job(job, _orders(first, work), lambda texts, stage: news.put((texts, stage))))
    except KeyboardInterrupt:
        return
    except CacheError as error:
        news.put(error)
    except Exception as error:  # rebuilt in the parent with the trace as its text
        news.put(RuntimeError(f"in an embedding process: {''.join(traceback.format_exception(error))}"))


def _interrupt(number: int, frame: object) -> None:
    """Turn a polite request to end into an interrupt, so that what was computed is written."""
    raise KeyboardInterrupt


def _orders(first: Chunk, work: Any) -> Iterator[Chunk]:
    yield first
    parent = multiprocessing.parent_process()
    while True:
        try:
            piece = work.get(timeout=1.0)
        except queue.Empty:
            if parent is not None and not parent.is_alive():
                return
            continue
        if piece is None:
            return
        yield piece
