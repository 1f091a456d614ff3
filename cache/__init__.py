"""Texts to features: the frozen backbone, packed batches, the HDF5 feature store. Knows no labels.

What is public is imported when it is first asked for, so that listing a store does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.atomic import atomic_file, atomic_folder
    from cache.backbones import BACKBONES, Backbone, resolve
    from cache.compaction import compact
    from cache.embedding import embed, embed_missing
    from cache.errors import CacheError
    from cache.keys import text_keys
    from cache.maintenance import find_stores, remove_store
    from cache.report import EmbeddedLayer, EmbedProgress, EmbedReport
    from cache.store import FeatureStore
    from cache.tokens import token_lengths
    from cache.verification import verify

_MODULE_OF = {
    "BACKBONES": "cache.backbones",
    "Backbone": "cache.backbones",
    "CacheError": "cache.errors",
    "EmbedProgress": "cache.report",
    "EmbedReport": "cache.report",
    "EmbeddedLayer": "cache.report",
    "FeatureStore": "cache.store",
    "atomic_file": "cache.atomic",
    "atomic_folder": "cache.atomic",
    "compact": "cache.compaction",
    "embed": "cache.embedding",
    "embed_missing": "cache.embedding",
    "find_stores": "cache.maintenance",
    "remove_store": "cache.maintenance",
    "resolve": "cache.backbones",
    "text_keys": "cache.keys",
    "token_lengths": "cache.tokens",
    "verify": "cache.verification",
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
