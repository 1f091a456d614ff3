"""Which orders are on the disk: an order is done when every row of it is in a shard that exists, and not before.

The worker's writing thread says what it has handed to the stores' writers; these commit a shard every ten seconds or
32 MiB, rows in the order in which they came. So an order is safe once each writer has committed as many rows as it had
been handed with the order's last text. Counting is all that this takes, and a batch costs a comparison.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache.report import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.chunks import Chunk
    from cache.packing import Batch
    from cache.writer import ShardWriter


@dataclass
class _Order:
    left: int
    promise: Future[Tally]
    tally: Tally = field(default_factory=Tally)
    marks: list[int] | None = None


class Receipts:
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

    def written(self, chunk: Chunk, batch: Batch, writers: Sequence[ShardWriter]) -> None:
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
