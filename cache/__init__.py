"""Texts to features: the frozen backbone, packed batches, the HDF5 feature store. Knows no labels.

A name is imported when it is first used, so that listing a store does not load torch. What is below these ten lies in
`cache.store`, `cache.backbone`, `cache.batching`, `cache.model`, `cache.workers` and `cache.cluster`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache import backbone as backbone
from cache import batching as batching
from cache import model as model
from cache import store as store
from cache import workers as workers
from cache.lazy import importer

if TYPE_CHECKING:
    from cache.backbone.registry import resolve
    from cache.embedding import embed, embed_missing
    from cache.errors import CacheError
    from cache.plan import EmbedRequest
    from cache.progress import EmbedProgress, EmbedReport
    from cache.store.hashing import text_keys
    from cache.store.store import FeatureStore
    from cache.store.verification import verify

__getattr__, __all__ = importer(
    __name__,
    {
        "cache.backbone.registry": "resolve",
        "cache.embedding": "embed embed_missing",
        "cache.errors": "CacheError",
        "cache.plan": "EmbedRequest",
        "cache.progress": "EmbedProgress EmbedReport",
        "cache.store.hashing": "text_keys",
        "cache.store.store": "FeatureStore",
        "cache.store.verification": "verify",
    },
)
