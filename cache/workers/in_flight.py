"""Which texts were handed to which process and are not known to be stored: what must be done again when one is lost.

A process says what it has computed, but only what lies in a committed shard outlives it. So the store is what is asked:
a piece is forgotten when all its rows are in shards, and when a process is lost, what is left of its pieces is exactly
what was lost. Looking costs the keys of the shards that came since the last look, and happens when as much again was
handed out as was left by it; memory is bounded by what writers hold back, 64 MiB of features a process.

Which orders are on the disk: an order is done when every row of it is in a shard that exists, and not before.

The worker's writing thread says what it has handed to the stores' writers; these commit a shard every ten seconds or
32 MiB, rows in the order in which they came. So an order is safe once each writer has committed as many rows as it had
been handed with the order's last text. Counting is all that this takes, and a batch costs a comparison.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from cache.progress import Tally
from cache.store.index import IncrementalStoreKeys
from cache.store.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from cache.batching.packing import Batch
    from cache.store.index import KeyIndex
    from cache.store.writer import ShardWriter
    from cache.workers.work_items import WorkItem


@dataclass
class _Order:
    left: int
    promise: Future[Tally]
    tally: Tally = field(default_factory=Tally)
    marks: list[int] | None = None


class Acknowledgements:
    """Orders by number, each with the promise that it will be stored; may be used from several threads."""

    def __init__(self) -> None:
        """Begin with no orders."""
        self._lock = threading.Lock()
        self._orders: dict[int, _Order] = {}
        self._error: BaseException | None = None

    def expect(self, number: int, texts: int) -> Future[Tally]:
        """Note an order of so many texts; what is returned ends with what they took, once they are stored."""
        order = _Order(texts, Future())
        with self._lock:
            if self._error is not None:
                order.promise.set_exception(self._error)
            elif not texts:
                order.promise.set_result(order.tally)
            else:
                self._orders[number] = order
        return order.promise

    def written(self, chunk: WorkItem, batch: Batch, writers: Sequence[ShardWriter]) -> None:
        """Note that a batch was handed to the writers, and see how far they have come."""
        with self._lock:
            order = self._orders[chunk.piece]
            order.left -= len(chunk.texts)
            order.tally.computed += len(chunk.texts)
            order.tally.tokens += batch.tokens
            order.tally.nodes += batch.nodes
            order.tally.padding += batch.padding
            if not order.left:
                order.marks = [writer.rows for writer in writers]
            self._settle([writer.committed for writer in writers])

    def flushed(self) -> None:
        """Note that the writers have committed everything and are gone."""
        with self._lock:
            self._settle(None)

    def fail(self, error: BaseException) -> None:
        """Tell everyone who waits, or will wait, that nothing more is stored."""
        with self._lock:
            self._error = error
            for order in self._orders.values():
                order.promise.set_exception(error)
            self._orders.clear()

    def _settle(self, committed: Sequence[int] | None) -> None:
        for number, order in list(self._orders.items()):
            if order.marks is not None and (
                committed is None or all(done >= mark for done, mark in zip(committed, order.marks, strict=True))
            ):
                del self._orders[number]
                order.promise.set_result(order.tally)


_FEW_TEXTS = 1 << 16


@dataclass(frozen=True)
class Piece:
    """Texts to compute; `suspicions` counts the processes that were lost while they had one of them in hand."""

    chunk: WorkItem
    suspicions: int = 0

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.chunk.texts)

    def take(self, at: NDArray[np.int64]) -> Piece:
        """Return the texts `at`, in that order."""
        return replace(self, chunk=self.chunk.take(at))


class InFlight:
    """Pieces by the process that has them, as far as they are not stored."""

    def __init__(self, stores: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
        """Note which shards there are: what is handed out is in none of them."""
        self._stores = stores
        self._later = [IncrementalStoreKeys(*store) for store in stores]
        self._open: dict[int, list[Piece]] = defaultdict(list)
        self._forgotten: dict[int, int] = defaultdict(int)
        self._texts, self._look_at = 0, _FEW_TEXTS

    def hand_out(self, process: int, piece: Piece) -> None:
        """Note that a process has a piece."""
        self._open[process].append(piece)
        self._texts += len(piece)
        if self._texts >= self._look_at:
            self._look()
            self._look_at = max(_FEW_TEXTS, 2 * self._texts)

    def close(self, process: int) -> tuple[list[Piece], int]:
        """Return what a process that is gone left undone, and how many texts of its pieces are stored.

        :raises CacheError: if the store cannot be read.
        """
        pieces = self._open.pop(process, [])
        handed_out = sum(map(len, pieces))
        self._texts -= handed_out
        stored = self._forgotten.pop(process, 0) + handed_out
        if not pieces:
            return [], stored
        there = [FeatureStore.create(*store).index for store in self._stores]
        left = [rest for piece in pieces if len(rest := _left(piece, there))]
        return left, stored - sum(map(len, left))

    def _look(self) -> None:
        there = [keys.look() for keys in self._later]
        for process, pieces in self._open.items():
            left = [rest for piece in pieces if len(rest := _left(piece, there))]
            done = sum(map(len, pieces)) - sum(map(len, left))
            self._open[process] = left
            self._forgotten[process] += done
            self._texts -= done


def _left(piece: Piece, there: Sequence[KeyIndex]) -> Piece:
    """Return what of a piece is absent from a store still, `there` being what each store holds."""
    chunk = piece.chunk
    absent = chunk.absent & np.stack([index.find(chunk.keys) < 0 for index in there], axis=1)
    if (absent == chunk.absent).all():
        return piece
    return replace(piece, chunk=replace(chunk, absent=absent).take(np.flatnonzero(absent.any(axis=1))))
