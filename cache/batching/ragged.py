"""Token sequences laid out flat: one int32 array for all, and the offsets between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """n token sequences: sequence i is `ids[offsets[i]:offsets[i + 1]]`; ids int32 [tokens], offsets int64 [n + 1]."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence, int64 [n]."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.int64]) -> Sequences:
        """Return the sequences `rows`, in that order."""
        lengths = self.lengths[rows]
        return Sequences(self.ids[ragged_ranges(self.offsets[rows], lengths)], offsets_of(lengths))

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Sequences:
        """Lay lists of token ids out flat."""
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(itertools.chain.from_iterable(lists), np.int32, int(lengths.sum()))
        return cls(ids, offsets_of(lengths))

    @classmethod
    def concatenated(cls, parts: Sequence[Sequences]) -> Sequences:
        """Put sequences behind one another."""
        lengths = [np.empty(0, np.int64), *(part.lengths for part in parts)]
        return cls(
            np.concatenate([np.empty(0, np.int32), *(p.ids for p in parts)]), offsets_of(np.concatenate(lengths))
        )


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return [0, l0, l0 + l1, ...], int64 [n + 1]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ragged_ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return start, start + 1, ... of every range one after another, int64 [sum of lengths]."""
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
