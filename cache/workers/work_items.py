"""Texts on their way to a device. A work item is what a worker is given; a batch is what the device computes at once.

The items of one reading hold texts that are neighbours in sorted order, so that texts which begin alike stay together
however many workers share them. Who passes items on need not look into them: their texts may be packed.

`InFlight` knows which items are computed and not yet on the disk. Only what lies in a committed shard outlives a
process. The stores' writers commit a shard every ten seconds or 32 MiB, in the order in which rows came, and count what
they committed. So an item is safe once every writer has committed as many rows as it had been handed with the item's
last text: counting is all that this takes. The alternative, asking the store which keys it holds, reads the keys of
every shard that anybody commits.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cache.batching.packing import Batch
from cache.progress import Tally
from cache.store.writer import ShardWriter

ITEM_TEXTS = {"cpu": 4096, "cuda": 16384}  # a moment's work on a CPU; on a GPU a few batches of the best size
_ITEM_CHARACTERS = 1 << 22  # an item that is given out late must not take a device long
ITEMS_READY = 8  # for whoever wants one next, while more texts are looked up


class PackedTexts(Sequence[str]):
    """Some of the texts that were packed together, unpacked when one is looked at.

    Sending them to another process costs a copy of bytes.
    """

    def __init__(self, packed: bytes, places: NDArray[np.int32]) -> None:
        """Hold the texts at `places`, int32 [n], among those that `pack` packed."""
        self._packed, self._places = packed, places

    @classmethod
    def pack(cls, texts: Sequence[str]) -> PackedTexts:
        """Pack texts."""
        return cls(pickle.dumps(list(texts)), np.arange(len(texts), dtype=np.int32))

    def take(self, at: NDArray[np.integer]) -> PackedTexts:
        """Return the texts `at`, in that order."""
        return PackedTexts(self._packed, self._places[at])

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        return self._texts[at]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __reduce__(self) -> Any:
        return PackedTexts, (self._packed, self._places)

    @cached_property
    def _texts(self) -> list[str]:
        every = pickle.loads(self._packed)
        return [every[place] for place in self._places.tolist()]


@dataclass(frozen=True)
class WorkItem:
    """Texts to compute: `rows` int64 [n] are their places in the caller's texts, `keys` uint8 [n, 16].

    `absent` bool [n, stores] says which stores lack a text: one layer may be there and another not. `number` is the
    scheduler's, under which the item is acknowledged.
    """

    texts: Sequence[str]
    rows: NDArray[np.int64]
    keys: NDArray[np.uint8]
    absent: NDArray[np.bool_]
    number: int = 0

    def take(self, at: NDArray[np.integer]) -> WorkItem:
        """Return the texts `at`, in that order."""
        texts = self.texts.take(at) if isinstance(self.texts, PackedTexts) else [self.texts[i] for i in at]
        return replace(self, texts=texts, rows=self.rows[at], keys=self.keys[at], absent=self.absent[at])

    def name(self, i: int) -> str:
        """Return what to call a text in a message: by its row, or, where a corpus has none (-1), as it begins."""
        return f"text {self.rows[i]}" if self.rows[i] >= 0 else f"text {self.texts[i][:40]!r}"


def split_texts(texts: Sequence[str], most: int, least: int) -> list[NDArray[np.int64]]:
    """Split texts into parts of at most `most`, neighbours in sorted order, and into at least `least` parts.

    Parts of long texts are smaller.

    :returns: the places of each part's texts, int64 [m].
    """
    order = sorted(range(len(texts)), key=texts.__getitem__)
    characters = sum(map(len, texts))
    count = max(least, -(-len(order) // most), -(-characters // _ITEM_CHARACTERS))
    return [part for part in np.array_split(np.array(order, np.int64), count) if len(part)]


def split_items(items: Iterable[WorkItem], most: int, least: int = 1) -> Iterator[WorkItem]:
    """Split each item (`split_texts`), but for those that are packed already."""
    for item in items:
        if isinstance(item.texts, PackedTexts):
            yield item
        else:
            yield from (item.take(part) for part in split_texts(item.texts, most, least))


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
        self.committed(writers)

    def committed(self, writers: Sequence[ShardWriter]) -> None:
        """Acknowledge the items of which every writer has committed all rows."""
        with self._lock:
            safe = [
                (number, item.tally)
                for number, item in self._items.items()
                if item.marks and all(one.committed >= mark for one, mark in zip(writers, item.marks, strict=True))
            ]
            for number, _ in safe:
                del self._items[number]
        for number, tally in safe:
            self._acknowledge(number, tally)
