"""Which texts are still to be computed: a stream of texts in, chunks of missing ones out, in constant memory.

Texts are read a window at a time, small windows first so that the device starts at once; keys are hashed and looked
up in bulk. A text that repeats one of its window, or one that is being computed but not yet committed, counts as
there. Only keys on their way are remembered, so that a corpus larger than memory streams through.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from cache.chunks import Chunk
from cache.errors import CacheError
from cache.growing import GrowingKeys
from cache.index import KeyIndex
from cache.keys import KEY_BYTES, text_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cache.store import FeatureStore

FIRST_WINDOW, WINDOW = 1 << 13, 1 << 16
_WINDOW_CHARACTERS = 1 << 25
_SLICE = 256


class Lookup:
    """Counts what it reads: `texts` so far, of which `reused` need no computing."""

    def __init__(self, texts: Iterable[str], stores: Sequence[FeatureStore], prompt: str) -> None:
        """Read no text yet; what the stores' objects have read of them is not read again."""
        self.texts = 0
        self.reused = 0
        self._source = iter(texts)
        self._prompt = prompt
        self._there = [GrowingKeys.of(store) for store in stores]
        self._underway = np.empty((0, KEY_BYTES), np.uint8)

    def missing(self) -> Iterator[Chunk]:
        """Yield the texts that some store lacks, once each, a chunk a window that has any.

        :raises CacheError: a text is empty or no string.
        """
        size = FIRST_WINDOW
        while texts := self._window(size):
            size = min(2 * size, WINDOW)
            keys = text_keys(texts, self._prompt)
            self._settle()
            absent = np.stack([~there.contains(keys) for there in self._there], axis=1)
            at = self._unseen(keys, np.flatnonzero(absent.any(1)))
            rows = at + self.texts
            self.texts += len(texts)
            self.reused += len(texts) - len(at)
            if len(at):
                yield Chunk([texts[i] for i in at], rows, keys[at], absent[at])

    def _window(self, size: int) -> list[str]:
        """Read the next `size` texts, fewer where they are long."""
        texts: list[str] = []
        characters = 0
        while len(texts) < size and characters < _WINDOW_CHARACTERS:
            some = list(itertools.islice(self._source, min(_SLICE, size - len(texts))))
            if not some:
                break
            check_texts(some, self.texts + len(texts))
            characters += sum(map(len, some))
            texts += some
        return texts

    def _settle(self) -> None:
        """Forget the keys that have been committed meanwhile."""
        for there in self._there:
            there.refresh()
        done = np.logical_and.reduce([there.contains(self._underway) for there in self._there])
        self._underway = self._underway[~done]

    def _unseen(self, keys: NDArray[np.uint8], candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the candidates whose key is neither underway nor an earlier candidate's."""
        asked = keys[candidates]
        first = KeyIndex.build(asked).find(asked) == np.arange(len(asked))
        at: NDArray[np.int64] = candidates[first & (KeyIndex.build(self._underway).find(asked) < 0)]
        self._underway = np.concatenate([self._underway, keys[at]])
        return at


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
        _check_one(text, row)


def _check_one(text: object, row: int) -> None:
    if not isinstance(text, str):
        raise CacheError(f"text {row} is {type(text).__name__}, not a string ({text!r:.60})", "drop or fill it")
    if not text or text.isspace():
        raise CacheError(f"text {row} is empty", "remove it, or give it content")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"text {row} holds a lone surrogate at character {error.start}"
        raise CacheError(what, "decode the source as UTF-8, or encode with errors='replace' first") from None
