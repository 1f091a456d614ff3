"""Keys that grow while one looks: in memory, and in a store's folder.

A `FeatureStore` sorts all keys again when it takes in new ones, 0.1 s a million rows. Whoever adds 65,536 at a time
would do little else. Here new keys are an index of their own, and indexes are merged when the smaller has grown to half
of its neighbour, so that a key is sorted a logarithmic number of times and a lookup asks few indexes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cache.errors import CacheError
from cache.index import KeyIndex
from cache.keys import KEY_BYTES
from cache.mapping import mapped
from cache.shard import list_shards, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

_ATTEMPTS = 10


class GrowingKeys:
    """A set of keys to which many are added at a time."""

    def __init__(self) -> None:
        """Hold none."""
        self._indexes: list[KeyIndex] = []

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


class LaterKeys:
    """Which keys came to a store's folder since the last look; those that are there at the start are not read."""

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        """Note which shards there are.

        :raises CacheError: if the folder cannot be read.
        """
        self._folder, self._description = folder, description
        self._seen = {path.name for path in list_shards(folder)}

    def look(self) -> KeyIndex:
        """Return an index of what shards hold that were not there at the last look.

        :raises CacheError: if the folder is gone, or a shard's header is damaged.
        """
        for _ in range(_ATTEMPTS):
            paths = list_shards(self._folder)
            try:
                shards = [read_header(path, self._description) for path in paths if path.name not in self._seen]
                keys = [np.empty((0, KEY_BYTES), np.uint8), *(np.array(mapped(shard).keys) for shard in shards)]
            except FileNotFoundError:  # compacted or repaired between listing and opening: list again
                continue
            self._seen = {path.name for path in paths}
            return KeyIndex.build(np.concatenate(keys))
        raise CacheError(f"the shards of {self._folder} keep changing while they are read", "try again in a moment")


def _keys_of(index: KeyIndex) -> NDArray[np.uint8]:
    """Return an index's keys, uint8 [n, 16]."""
    return np.stack([index.first, index.second], axis=1).astype("<u8").view(np.uint8)
