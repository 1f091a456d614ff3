"""Texts on their way to a device: chunks, as they come out of the lookup, and the pieces that are handed around.

A piece holds texts that are neighbours in sorted order, so that those which begin alike stay together however many
processes share them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

PIECE_TEXTS = {"cpu": 4096, "cuda": 16384}  # a moment's work on a CPU; on a GPU a few batches of the best size
_PIECE_CHARACTERS = 1 << 22  # what is handed out late must not take a device long
PIECES_READY = 8  # for who wants one next, while more texts are looked up


@dataclass(frozen=True)
class Chunk:
    """Texts to compute: `rows` int64 [n] are their places in the caller's texts, `keys` uint8 [n, 16].

    `absent` bool [n, stores] says which stores lack a text: one layer may be there and another not. `piece` numbers the
    order that the texts came with, for whoever wants to know when they are stored.
    """

    texts: list[str]
    rows: NDArray[np.int64]
    keys: NDArray[np.uint8]
    absent: NDArray[np.bool_]
    piece: int = 0

    def take(self, at: NDArray[np.int64]) -> Chunk:
        """Return the texts `at`, in that order."""
        return Chunk([self.texts[i] for i in at], self.rows[at], self.keys[at], self.absent[at], self.piece)

    def name(self, i: int) -> str:
        """Return what to call a text in a message: by its row, or, where a stream has none (-1), as it begins."""
        return f"text {self.rows[i]}" if self.rows[i] >= 0 else f"text {self.texts[i][:40]!r}"


def in_pieces(chunks: Iterable[Chunk], texts: int, least: int = 1) -> Iterator[Chunk]:
    """Cut each chunk into pieces of at most so many `texts`, neighbours in sorted order, and into at `least` so many.

    Pieces of long texts are smaller.
    """
    for chunk in chunks:
        order = sorted(range(len(chunk.texts)), key=chunk.texts.__getitem__)
        characters = sum(map(len, chunk.texts))
        count = max(least, -(-len(order) // texts), -(-characters // _PIECE_CHARACTERS))
        for part in np.array_split(np.array(order, np.int64), count):
            if len(part):
                yield chunk.take(part)
