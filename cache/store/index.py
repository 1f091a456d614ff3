"""From key to row: the keys of all shards, sorted, at most 24 bytes per row in memory.

Three parallel arrays hold the first and the second half of every distinct key and the row's number, counted through all
shards in the order of their names. Of two rows with one key the one with the lower number counts.

Keys are hashes, so their leading bits are spread evenly: a table says where the keys with given leading bits begin, and
what is sought lies there or a step or two behind. For a million lookups that is ten times as fast as binary search
(0.02 s against 0.2 s), in a handful of numpy calls. The second halves confirm the find, and decide where first halves
coincide, which hashes hardly ever do but tests and attackers may.

Building costs one sort, 0.1 s per million rows. The alternatives: a dict takes 200 bytes per row and a Python loop; an
index file beside the shards is one more thing that a kill can leave wrong.

`IncrementalKeys` is a set to which many keys are added at a time. Sorting all again, as a `FeatureStore` does when it
takes in new shards, costs 0.1 s per million rows, too much per 65,536 texts. Here new keys are an index of their own,
and indexes are merged when the smaller has grown to half of its neighbour, so that a key is sorted a logarithmic number
of times and a lookup asks few indexes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_STEPS = 16


@dataclass
class IncrementalKeys:
    """A set of keys to which many are added at a time."""

    _indexes: list[KeyIndex] = field(default_factory=list)

    def add(self, found: KeyIndex) -> None:
        """Take in the keys of an index."""
        if not len(found.first):
            return
        self._indexes.append(found)
        while len(self._indexes) > 1 and len(self._indexes[-2].first) < 2 * len(self._indexes[-1].first):
            merged = np.concatenate([_keys_of(self._indexes.pop()), _keys_of(self._indexes.pop())])
            self._indexes.append(KeyIndex.build(merged))

    def contains(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of `keys`, uint8 [n, 16], were added, bool [n]."""
        found = np.zeros(len(keys), bool)
        for index in self._indexes:
            found |= index.find(keys) >= 0
        return found


def _keys_of(index: KeyIndex) -> NDArray[np.uint8]:
    """Return an index's keys, uint8 [n, 16]."""
    return np.stack([index.first, index.second], axis=1).astype("<u8").view(np.uint8)


@dataclass(frozen=True)
class KeyIndex:
    """Distinct keys in ascending order as two words, the number of the row that counts for each, and the table.

    `begins` [2^(64 - shift)] holds, for every value of `first >> shift`, how many keys come before those with it.
    """

    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    numbers: NDArray[np.integer]
    begins: NDArray[np.integer]
    shift: np.uint64

    @classmethod
    def build(cls, keys: NDArray[np.uint8]) -> KeyIndex:
        """Index contiguous `keys`, uint8 [n, 16], row i having number i."""
        words = keys.view("<u8")
        first, second = words[:, 0], words[:, 1]
        order = np.argsort(first, kind="stable")  # as fast as any, and where sorted keys are merged, eight times
        ordered = first[order]
        same = ordered[1:] == ordered[:-1]
        if same.any():
            _sort_ties(order, ordered, same, second)
            again = same & (second[order[1:]] == second[order[:-1]])
            order = order[np.concatenate(([True], ~again))]
            ordered = first[order]
        narrow = np.uint32 if len(keys) < 1 << 32 else np.int64
        # at most one entry per key, and at least two: a shift by all 64 bits is undefined
        bits = max(1, len(order).bit_length() - 1)
        shift = np.uint64(64 - bits)
        begins = np.searchsorted(ordered, np.arange(1 << bits, dtype=np.uint64) << shift)
        return cls(ordered, second[order], order.astype(narrow), begins.astype(narrow), shift)

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the row number of every key, uint8 [m, 16], contiguous: int64 [m]; -1 where there is none."""
        if not len(self.first):
            return np.full(len(keys), -1, np.int64)
        words = keys.view("<u8")
        first, second = np.ascontiguousarray(words[:, 0]), words[:, 1]
        at = np.minimum(self._search(first), len(self.first) - 1)
        candidate = self.first[at] == first
        found = candidate & (self.second[at] == second)
        unsure = np.flatnonzero(candidate & ~found)
        if len(unsure):
            at[unsure] = self._search_ties(at[unsure], first[unsure], second[unsure])
            found[unsure] = self.second[at[unsure]] == second[unsure]
        numbers = self.numbers[at].astype(np.int64)
        numbers[~found] = -1
        return numbers

    def _search(self, first: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return what `np.searchsorted(self.first, first)` does."""
        at: NDArray[np.int64] = self.begins[first >> self.shift].astype(np.int64)
        last = len(self.first) - 1
        behind = np.flatnonzero(self.first[np.minimum(at, last)] < first)
        for _ in range(_STEPS):
            if not len(behind):
                return at
            at[behind] += 1
            steps = at[behind]
            behind = behind[(steps <= last) & (self.first[np.minimum(steps, last)] < first[behind])]
        at[behind] = np.searchsorted(self.first, first[behind])
        return at

    def _search_ties(
        self, low: NDArray[np.int64], first: NDArray[np.uint64], second: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Return, for keys whose first word stands at `low` and after, where the second word is or would be."""
        high = np.searchsorted(self.first, first, side="right") - 1
        while (low < high).any():
            middle = (low + high) // 2
            right = self.second[middle] < second
            low = np.where(right, np.minimum(middle + 1, high), low)
            high = np.where(right, high, middle)
        return low


def _sort_ties(
    order: NDArray[np.int64], ordered: NDArray[np.uint64], same: NDArray[np.bool_], second: NDArray[np.uint64]
) -> None:
    """Sort the runs of equal first words in `order` by second word, then by row number, in place."""
    tied = np.flatnonzero(np.concatenate((same, [False])) | np.concatenate(([False], same)))
    rows = order[tied]
    order[tied] = rows[np.lexsort((rows, second[rows], ordered[tied]))]
