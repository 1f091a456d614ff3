"""Texts on their way to a device: chunks, as they come out of the lookup, and the pieces that are handed around.

A piece holds texts that are neighbours in sorted order, so that those which begin alike stay together however many
processes share them out. What passes pieces on need not look into them: their texts may be packed.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

ITEM_TEXTS = {"cpu": 4096, "cuda": 16384}  # a moment's work on a CPU; on a GPU a few batches of the best size
_PIECE_CHARACTERS = 1 << 22  # what is handed out late must not take a device long
ITEMS_READY = 8  # for who wants one next, while more texts are looked up


class PackedTexts(Sequence[str]):
    """Some of the texts that were packed together; they are unpacked when one is looked at, and not before.

    Going to another process they cost a copy of bytes.
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

    `absent` bool [n, stores] says which stores lack a text: one layer may be there and another not. `piece` numbers the
    order that the texts came with, for whoever wants to know when they are stored.
    """

    texts: Sequence[str]
    rows: NDArray[np.int64]
    keys: NDArray[np.uint8]
    absent: NDArray[np.bool_]
    piece: int = 0

    def take(self, at: NDArray[np.integer]) -> WorkItem:
        """Return the texts `at`, in that order."""
        texts = self.texts.take(at) if isinstance(self.texts, PackedTexts) else [self.texts[i] for i in at]
        return WorkItem(texts, self.rows[at], self.keys[at], self.absent[at], self.piece)

    def name(self, i: int) -> str:
        """Return what to call a text in a message: by its row, or, where a stream has none (-1), as it begins."""
        return f"text {self.rows[i]}" if self.rows[i] >= 0 else f"text {self.texts[i][:40]!r}"


def split_texts(texts: Sequence[str], most: int, least: int) -> list[NDArray[np.int64]]:
    """Cut texts into pieces of at most so many, neighbours in sorted order, and into at least so many pieces.

    Pieces of long texts are smaller.

    :returns: the places of each piece's texts.
    """
    order = sorted(range(len(texts)), key=texts.__getitem__)
    characters = sum(map(len, texts))
    count = max(least, -(-len(order) // most), -(-characters // _PIECE_CHARACTERS))
    return [part for part in np.array_split(np.array(order, np.int64), count) if len(part)]


def split_items(chunks: Iterable[WorkItem], most: int, least: int = 1) -> Iterator[WorkItem]:
    """Cut each chunk into pieces (`split_texts`), but for what has been cut and packed."""
    for chunk in chunks:
        if isinstance(chunk.texts, PackedTexts):
            yield chunk
        else:
            yield from (chunk.take(part) for part in split_texts(chunk.texts, most, least))
