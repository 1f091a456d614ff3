"""Which texts are still to be computed: a stream of texts in, those that are missing out.

Texts are read some thousands at a time, fewer at first so that the device starts at once; keys are hashed and looked up
in bulk. A text that was missing counts as stored from then on: only its key is remembered, as the stores' own are, so
that a corpus larger than memory streams through. What other processes store meanwhile is not seen: it is computed
twice, and the first row counts.

Hashing, sorting and packing take most of the time. For several GPUs worker processes (`lookup_pool`) do them, and half
is left here (`benchmarks/cache/scheduler.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cache.devices import cores
from cache.errors import CacheError
from cache.store.hashing import text_keys, utf8
from cache.store.index import IncrementalKeys, KeyIndex
from cache.store.store import FeatureStore
from cache.workers.helper_processes import HelperProcesses
from cache.workers.work_items import PackedTexts, WorkItem, split_texts

FIRST_READ, READ_TEXTS = 1 << 13, 1 << 16
_READ_CHARACTERS = 1 << 25
_SLICE = 256
_PROCESSES = 4
_CORES_PER_PROCESS = 8
# the keys of the texts read, and the places and packed texts of each item
Read = tuple["NDArray[np.uint8]", list[tuple["NDArray[np.int64]", PackedTexts]]]


class Lookup:
    """Counts what it reads: `texts` so far, of which `reused` need no computing."""

    def __init__(self, texts: Iterable[str], stores: Sequence[FeatureStore], prompt: str) -> None:
        """Read no text yet; what the stores' objects have read of them is not read again."""
        self.texts = 0
        self.reused = 0
        self._source = iter(texts)
        self._size = FIRST_READ
        self._prompt = prompt
        self._there = [store.index for store in stores]
        self._seen = IncrementalKeys()

    def missing(self) -> Iterator[WorkItem]:
        """Yield the texts that some store lacks, once each, an item per reading that has any; may be called again.

        :raises CacheError: a text is empty or no string.
        """
        for first, texts in self._reads():
            keys = text_keys(texts, self._prompt)
            at, absent = self._missing_of(keys)
            if len(at):
                yield WorkItem([texts[i] for i in at], at + first, keys[at], absent)

    def missing_items(self, pool: HelperProcesses) -> Iterator[WorkItem]:
        """Yield the texts that some store lacks, once each, as the processes of a `lookup_pool` packed them.

        :raises CacheError: a text is empty or no string; a process of the pool was killed.
        """
        for (first, _), (keys, parts) in pool.map(self._reads(), lambda read: read[1]):
            at, absent = self._missing_of(keys)
            place = np.full(len(keys), -1)
            place[at] = np.arange(len(at))
            for places, texts in parts:
                wanted = np.flatnonzero(place[places] >= 0)
                rows = places[wanted]
                if not len(rows):
                    continue
                # a few of many: whoever gets them would be sent all that they were packed with
                few = 2 * len(wanted) < len(places)
                some = PackedTexts.pack([texts[i] for i in wanted]) if few else texts.take(wanted)
                yield WorkItem(some, rows + first, keys[rows], absent[place[rows]])

    def _reads(self) -> Iterator[tuple[int, list[str]]]:
        """Read texts, ever more at a time, and yield them with the number of texts before them."""
        first = self.texts
        while texts := self._read_next(self._size, first):
            self._size = min(2 * self._size, READ_TEXTS)
            yield first, texts
            first += len(texts)

    def _read_next(self, size: int, first: int) -> list[str]:
        """Read the next `size` texts, fewer where they are long."""
        texts: list[str] = []
        characters = 0
        while len(texts) < size and characters < _READ_CHARACTERS:
            some = list(itertools.islice(self._source, min(_SLICE, size - len(texts))))
            if not some:
                break
            check_texts(some, first + len(texts))
            characters += sum(map(len, some))
            texts += some
        return texts

    def _missing_of(self, keys: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return which of the texts read are missing, int64 [m], and from which stores, bool [m, stores]."""
        absent = np.stack([there.find(keys) < 0 for there in self._there], axis=1)
        candidates = np.flatnonzero(absent.any(1))
        wanted = keys[candidates]
        index = KeyIndex.build(wanted)
        first = index.find(wanted) == np.arange(len(wanted))
        at: NDArray[np.int64] = candidates[first & ~self._seen.contains(wanted)]
        self._seen.add(index)
        self.texts += len(keys)
        self.reused += len(keys) - len(at)
        return at, absent[at]


def lookup_pool(count: int, prompt: str, most: int, least: int) -> HelperProcesses:
    """Start processes that hash, sort and pack texts, for a `with` block around `Lookup.missing_items`.

    :param most: texts per item, and `least` items per reading (`cache.workers.work_items.split_texts`).
    """
    return HelperProcesses(f"{__name__}.reading", count, prompt, most, least)


def lookup_processes(devices: Sequence[str], total: int) -> int:
    """Return how many processes should look up so many texts (0: unknown): none unless several devices are GPUs."""
    many = not total or total >= len(devices) * READ_TEXTS
    if len(devices) == 1 or devices[0] == "cpu" or not many:
        return 0
    return min(_PROCESSES, len(devices), cores() // _CORES_PER_PROCESS)


def reading(prompt: str, most: int, least: int) -> Callable[[list[str]], Read]:
    """Return what a process of the pool does with texts."""

    def work(texts: list[str]) -> Read:
        parts = [(places, PackedTexts.pack([texts[i] for i in places])) for places in split_texts(texts, most, least)]
        return text_keys(texts, prompt), parts

    return work


def check_texts(texts: list[str], first: int) -> None:
    """Refuse what cannot be embedded; all texts at once, one by one only to find the row to name.

    :raises CacheError: a text is empty, no string, or not to be encoded in UTF-8.
    """
    try:
        "".join(texts).encode()
        if all(map(str.strip, texts)):
            return
    except (TypeError, UnicodeEncodeError):
        pass
    for row, text in enumerate(texts, start=first):
        utf8(text, f"text {row}")
        if not text.strip():
            raise CacheError(f"text {row} is empty", "remove it, or give it content")
