"""Which texts were handed to which process and are not known to be stored: what must be done again when one is lost.

A process says what it has computed, but only what lies in a committed shard outlives it. So the store is what is asked:
a piece is forgotten when all its rows are in shards, and when a process is lost, what is left of its pieces is exactly
what was lost. Looking costs the keys of the shards that came since the last look, and happens when as much again was
handed out as was left by it; memory is bounded by what writers hold back, 64 MiB of features a process.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cache.growing import LaterKeys
from cache.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from cache.chunks import Chunk
    from cache.index import KeyIndex

_FEW_TEXTS = 1 << 16


@dataclass(frozen=True)
class Piece:
    """Texts to compute; `suspicions` counts the processes that were lost while they had one of them in hand."""

    chunk: Chunk
    suspicions: int = 0

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.chunk.texts)

    def take(self, at: NDArray[np.int64]) -> Piece:
        """Return the texts `at`, in that order."""
        return replace(self, chunk=self.chunk.take(at))


class Ledger:
    """Pieces by the process that has them, as far as they are not stored."""

    def __init__(self, stores: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
        """Note which shards there are: what is handed out is in none of them."""
        self._stores = stores
        self._later = [LaterKeys(*store) for store in stores]
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
