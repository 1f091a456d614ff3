"""Which texts are still to be computed: a stream of texts in, chunks of missing ones out, in constant memory.

Texts are read a window at a time; keys are hashed and looked up in bulk. A text that repeats within the window, or that
is being computed but not yet committed, counts as there. Only keys on their way are remembered, so that a corpus larger
than memory streams through.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import CacheError
from cache.keys import KEY_BYTES, text_keys
from cache.worker import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cache.store import FeatureStore

WINDOW = 1 << 16


class Lookup:
    """Counts what it reads: `texts` so far, of which `reused` need no computing."""

    def __init__(self, texts: Iterable[str], stores: Sequence[FeatureStore], prompt: str) -> None:
        """Read nothing yet."""
        self.texts = 0
        self.reused = 0
        self._source = iter(texts)
        self._stores = stores
        self._prompt = prompt
        self._underway: set[bytes] = set()

    def missing(self, window: int = WINDOW) -> Iterator[Chunk]:
        """Yield the texts that some store lacks, once each, a chunk a window that has any.

        :raises CacheError: a text is empty or no string.
        """
        while texts := list(itertools.islice(self._source, window)):
            first = self.texts
            _refuse_empty(texts, first)
            keys = self._keys(texts, first)
            self._settle()
            absent = np.stack([~store.contains(keys) for store in self._stores])
            rows = self._unseen(keys, np.flatnonzero(absent.any(0)))
            self.texts += len(texts)
            self.reused += len(texts) - len(rows)
            if len(rows):
                yield Chunk([texts[row] for row in rows], rows + first, keys[rows], absent[:, rows])

    def _keys(self, texts: list[str], first: int) -> NDArray[np.uint8]:
        return text_keys(texts, self._prompt)

    def _settle(self) -> None:
        """Forget the keys that have been committed meanwhile."""
        for store in self._stores:
            store.refresh()
        if self._underway:
            keys = np.frombuffer(b"".join(self._underway), np.uint8).reshape(-1, KEY_BYTES)
            done = np.logical_and.reduce([store.contains(keys) for store in self._stores])
            self._underway = {key.tobytes() for key in keys[~done]}

    def _unseen(self, keys: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows whose key is neither underway nor an earlier row's."""
        kept = []
        for row in rows.tolist():
            key = keys[row].tobytes()
            if key not in self._underway:
                self._underway.add(key)
                kept.append(row)
        return np.array(kept, np.int64)


def _refuse_empty(texts: list[str], first: int) -> None:
    for row, text in enumerate(texts):
        if isinstance(text, str) and not text.strip():
            raise CacheError(f"text {first + row} is empty", "remove it, or give it content")
