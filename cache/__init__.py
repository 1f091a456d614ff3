"""Texts to features: the frozen backbone, packed batches, the HDF5 feature store. Knows no labels.

What is public is imported when it is first asked for, so that listing a store does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.backbone.registry import BACKBONES, Backbone, resolve
    from cache.batching.tokenizer import token_lengths
    from cache.embedding import embed, embed_missing
    from cache.errors import CacheError
    from cache.progress import EmbeddedLayer, EmbedProgress, EmbedReport
    from cache.store.atomic import atomic_file, atomic_folder
    from cache.store.hashing import text_keys
    from cache.store.maintenance import compact, find_stores, remove_store
    from cache.store.store import FeatureStore
    from cache.store.verification import verify

_MODULE_OF = {
    "BACKBONES": "cache.backbone.registry",
    "Backbone": "cache.backbone.registry",
    "CacheError": "cache.errors",
    "EmbedProgress": "cache.progress",
    "EmbedReport": "cache.progress",
    "EmbeddedLayer": "cache.progress",
    "FeatureStore": "cache.store.store",
    "atomic_file": "cache.store.atomic",
    "atomic_folder": "cache.store.atomic",
    "compact": "cache.store.maintenance",
    "embed": "cache.embedding",
    "embed_missing": "cache.embedding",
    "find_stores": "cache.store.maintenance",
    "remove_store": "cache.store.maintenance",
    "resolve": "cache.backbone.registry",
    "text_keys": "cache.store.hashing",
    "token_lengths": "cache.batching.tokenizer",
    "verify": "cache.store.verification",
}

__all__ = [
    "BACKBONES",
    "Backbone",
    "CacheError",
    "EmbedProgress",
    "EmbedReport",
    "EmbeddedLayer",
    "FeatureStore",
    "atomic_file",
    "atomic_folder",
    "compact",
    "embed",
    "embed_missing",
    "find_stores",
    "remove_store",
    "resolve",
    "text_keys",
    "token_lengths",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import the module of a public name on its first use (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'cache' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
