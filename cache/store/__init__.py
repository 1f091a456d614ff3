"""The feature store: immutable HDF5 shards, looked up by key, read as memory; and files that are whole or absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import importer

if TYPE_CHECKING:
    from cache.store.atomic import atomic_file, atomic_folder, remove_stale_partials
    from cache.store.description import read_description
    from cache.store.given import store_vectors
    from cache.store.maintenance import compact, find_stores, remove_store
    from cache.store.store import FeatureStore

__getattr__, __all__ = importer(
    __name__,
    {
        "cache.store.atomic": "atomic_file atomic_folder remove_stale_partials",
        "cache.store.description": "read_description",
        "cache.store.given": "store_vectors",
        "cache.store.maintenance": "compact find_stores remove_store",
        "cache.store.store": "FeatureStore",
    },
)
