"""The keys of a store that grows while one looks: each look reads the shards that came since the last one.

A `FeatureStore` sorts all keys again when it takes in new shards, 0.1 s a million rows. Whoever looks every 65,536
texts while eight GPUs write would do little else. Here new keys are an index of their own, and indexes are merged when
the smaller has grown to half of its neighbour, so that a key is sorted a logarithmic number of times and a lookup asks
few indexes. A shard that goes (compaction, repair) may take rows along: then everything is read again.
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
    """Which keys a store's folder holds, as of the last `refresh`."""

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        """Read nothing yet."""
        self._folder, self._description = folder, description
        self._seen: set[str] = set()
        self._indexes: list[KeyIndex] = []

    def refresh(self) -> KeyIndex:
        """Take in what was committed since; return an index of what is new.

        :raises CacheError: if the folder is gone, or a shard's header is damaged.
        """
        for _ in range(_ATTEMPTS):
            paths = list_shards(self._folder)
            if self._seen - {path.name for path in paths}:
                self._seen, self._indexes = set(), []
            new = [path for path in paths if path.name not in self._seen]
            try:
                shards = [read_header(path, self._description) for path in new]
                keys = [np.empty((0, KEY_BYTES), np.uint8), *(np.array(mapped(shard).keys) for shard in shards)]
            except FileNotFoundError:  # compacted or repaired between listing and opening: list again
                continue
            self._seen |= {path.name for path in new}
            found = KeyIndex.build(np.concatenate(keys))
            self._take_in(found)
            return found
        raise CacheError(f"the shards of {self._folder} keep changing while they are read", "try again in a moment")

    def contains(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of `keys`, uint8 [n, 16], are there, bool [n]."""
        found = np.zeros(len(keys), bool)
        for index in self._indexes:
            found |= index.find(keys) >= 0
        return found

    def _take_in(self, found: KeyIndex) -> None:
        if not len(found.first):
            return
        self._indexes.append(found)
        while len(self._indexes) > 1 and len(self._indexes[-2].first) < 2 * len(self._indexes[-1].first):
            merged = np.concatenate([_keys_of(self._indexes.pop()), _keys_of(self._indexes.pop())])
            self._indexes.append(KeyIndex.build(merged))


def _keys_of(index: KeyIndex) -> NDArray[np.uint8]:
    """Return an index's keys, uint8 [n, 16]."""
    return np.stack([index.first, index.second], axis=1).astype("<u8").view(np.uint8)
