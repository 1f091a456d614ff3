"""Which work items are computed and not yet on the disk.

Only what lies in a committed shard outlives a process. The stores' writers commit a shard every ten seconds or 32 MiB,
in the order in which rows came, and count what they committed. So an item is safe once every writer has committed as
many rows as it had been handed with the item's last text: counting is all that this takes. The alternative, asking the
store which keys it holds, reads the keys of every shard that anybody commits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cache.batching.packing import Batch
from cache.progress import Tally
from cache.store.writer import ShardWriter
from cache.workers.work_items import WorkItem


@dataclass
class _Item:
    left: int
    tally: Tally = field(default_factory=Tally)
    marks: list[int] | None = None


class InFlight:
    """Items by number, from when they arrive until they are acknowledged; used from several threads."""

    def __init__(self, acknowledge: Callable[[int, Tally], None]) -> None:
        """Call `acknowledge` with an item's number, and what it took, once all its rows are committed."""
        self._acknowledge = acknowledge
        self._lock = threading.Lock()
        self._items: dict[int, _Item] = {}

    def add(self, item: WorkItem) -> None:
        """Note an item that is to be computed."""
        with self._lock:
            self._items[item.number] = _Item(len(item.texts))

    def handed_over(self, part: WorkItem, batch: Batch, writers: Sequence[ShardWriter]) -> None:
        """Note that a batch, the texts `part` of an item, was handed to the writers; see how far they have come."""
        with self._lock:
            item = self._items[part.number]
            item.left -= len(part.texts)
            item.tally.add(Tally(len(part.texts), batch.tokens, batch.nodes, batch.padding))
            if not item.left:
                item.marks = [writer.rows for writer in writers]
        self.committed([writer.committed for writer in writers])

    def committed(self, rows: Sequence[int]) -> None:
        """Acknowledge what is safe, every writer having committed so many rows."""
        with self._lock:
            safe = [
                (number, item.tally)
                for number, item in self._items.items()
                if item.marks is not None and all(done >= mark for done, mark in zip(rows, item.marks, strict=True))
            ]
            for number, _ in safe:
                del self._items[number]
        for number, tally in safe:
            self._acknowledge(number, tally)
