"""Texts to packed batches, here or in a process of its own.

A fast GPU embeds a text in twelve microseconds; tokenizing and packing it takes Python as long, and what Python does in
one thread, the thread that feeds the GPU waits for. So where there is much to do, helper processes tokenize and pack:
they get texts through a pipe and send back arrays. They import neither torch nor the caller's main module (which
multiprocessing's spawn would run again: a script of three lines needs no guard), ignore Ctrl-C, and end when their
input does, however the parent ended. The alternative, more threads, was measured: half the speed.

Three feed the fastest GPU that there is. Where several GPUs share a host, each gets its part of the cores: one for the
process that launches kernels and writes, the others, up to three, for helpers; none where there is no core left, and
that process then tokenizes by itself. A helper's tokenizer has the threads that its part of the cores allows: left to
itself it starts one on every core of the host, and the threads of six helpers do little but wait for one another. While
a helper works, its next texts come in and its last batches go out, so that it waits for nobody.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from cache.ahead import Ahead, Behind
from cache.devices import cores
from cache.errors import DeviceError
from cache.masks import HostTrie
from cache.packing import Batch, pack
from cache.sequences import Sequences
from cache.tokens import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from cache.backbones import Backbone

T = TypeVar("T")
_MOST = 3
_ORDERS_EACH = 2  # one to work on and one to go on with
_THREADS = "RAYON_NUM_THREADS"


def helper_share(processes: int) -> tuple[int, int]:
    """Return how many helpers each of so many processes of this host, a device each, should have, of how many threads.

    One core of each process's share stays its own.
    """
    left = cores() // processes - 1
    count = max(0, min(_MOST, left))
    return count, left // count if count else 0


@dataclass(frozen=True)
class Packing:
    """How an encoder wants its batches: layout and most nodes (`cache.packing.pack`); with block lists if `laid_out`.

    `windowed`: some layer sees a local window only (`cache.masks.HostTrie`).
    """

    layout: str
    budget: int
    laid_out: bool = False
    windowed: bool = False

    def batches(self, sequences: Sequences) -> Iterator[Batch]:
        """Yield the batches that hold `sequences`."""
        for batch in pack(sequences, self.layout, self.budget):
            yield replace(batch, laid_out=HostTrie.of(batch, windowed=self.windowed)) if self.laid_out else batch


class Helpers:
    """Processes that tokenize and pack, in turns: a `with` block around `prepare`."""

    def __init__(self, folder: Path, backbone: Backbone, count: int, threads: int) -> None:
        """Start them; they load the tokenizer of the checkpoint in `folder` meanwhile.

        Each tokenizes in so many `threads`, unless RAYON_NUM_THREADS says otherwise.
        """
        self._all = [_Helper(folder, backbone, threads) for _ in range(count)]

    def __enter__(self) -> Self:
        """Use them."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close their inputs, all at once, and wait until they have ended."""
        for helper in self._all:
            helper.dismiss()
        for helper in self._all:
            helper.wait()

    def encode(self, texts: list[str]) -> Sequences:
        """Return the token sequences of `texts`.

        :raises CacheError: what tokenizing raises, or that a helper was killed.
        """
        self._all[0].order((texts, None))
        sequences: Sequences = self._all[0].answer()
        return sequences

    def prepare(self, chunks: Iterable[T], texts_of: Callable[[T], list[str]], packing: Packing) -> Prepared[T]:
        """Return an iterator over each chunk with its batches; the helpers set to work at once."""
        return Prepared(self._all, chunks, texts_of, packing)


class Prepared(Generic[T]):
    """Yields each chunk with the batches of its texts and the seconds they took, two chunks a helper in advance.

    `packing` may be set anew: chunks that are handed out later follow it.
    """

    def __init__(
        self, helpers: list[_Helper], chunks: Iterable[T], texts_of: Callable[[T], list[str]], packing: Packing
    ) -> None:
        """Hand out the first chunks."""
        self.packing = packing

        def handed_out() -> Iterator[tuple[T, _Helper]]:
            for chunk, helper in zip(chunks, itertools.cycle(helpers), strict=False):
                helper.order((texts_of(chunk), self.packing))
                yield chunk, helper

        self._underway = Ahead(handed_out(), _ORDERS_EACH * len(helpers) - 1)

    def __iter__(self) -> Iterator[tuple[T, list[Batch], float]]:
        """Yield in the chunks' order.

        :raises CacheError: what tokenizing raises, or that a helper was killed.
        """
        for chunk, helper in self._underway:
            yield chunk, *helper.answer()


class _Helper:
    """One process and the pipes to it."""

    def __init__(self, folder: Path, backbone: Backbone, threads: int) -> None:
        # -P: a cache.py in the current folder is none of ours
        command = [sys.executable, "-P", "-c", "from cache.prepare import serve; serve()"]
        # the child finds this package where this process found it
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {_THREADS: str(threads), **os.environ, "PYTHONPATH": paths}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._results = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        self.order((folder, backbone))

    def order(self, what: Any) -> None:
        try:
            self._orders.send(what)
        except OSError:
            raise _ended() from None

    def answer(self) -> Any:
        try:
            result = self._results.recv()
        except (EOFError, OSError):
            raise _ended() from None
        if isinstance(result, BaseException):
            raise result
        return result

    def dismiss(self) -> None:
        self._results.close()
        self._orders.close()

    def wait(self) -> None:
        self._process.wait()


def _ended() -> DeviceError:
    return DeviceError("a tokenizing process ended", "its memory may have run out; run again to go on")


def serve() -> None:
    """Be the helper: orders come in on standard input, results go out on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders, results = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever prints must not reach the pipe
    try:
        tokenizer = TextTokenizer(*orders.recv())
        with Behind[Any](partial(_send, results), 1) as sending:
            for texts, packing in Ahead(_received(orders), 1):
                sending.put(_answer(tokenizer, texts, packing))
    except (EOFError, OSError):  # the parent has closed its end, or is gone
        return
    except Exception as error:  # raised in the parent
        results.send(error)


def _received(orders: Connection) -> Iterator[tuple[list[str], Packing | None]]:
    while True:
        yield orders.recv()


def _send(results: Connection, answers: Iterator[Any]) -> None:
    for answer in answers:
        results.send(answer)


def _answer(tokenizer: TextTokenizer, texts: list[str], packing: Packing | None) -> Sequences | tuple[Any, float]:
    """Return token sequences, or with a packing their batches and the seconds that took."""
    began = time.perf_counter()
    sequences = tokenizer.encode(texts)
    if packing is None:
        return sequences
    return list(packing.batches(sequences)), time.perf_counter() - began
