"""Vectors that no backbone here computed, as a store of their own: any model's, any API's, under a name.

Their fingerprint is that of texts and numbers together: one changed number is another feature set.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.progress import EmbeddedLayer, EmbedReport
from cache.store.description import description_of_vectors
from cache.store.hashing import text_keys
from cache.store.store import FeatureStore


def store_vectors(root: Path, name: str, texts: Sequence[str], vectors: NDArray[np.float32]) -> EmbedReport:
    """Store `vectors` float32 [n, D] of `texts` [n] below `root`, of equal texts the first row, as float32.

    :raises CacheError: the store cannot be written; a vector is not finite.
    """
    began = time.perf_counter()
    every = text_keys(texts, "")
    first = np.sort(np.unique(every, axis=0, return_index=True)[1])
    keys, rows = np.ascontiguousarray(every[first]), np.ascontiguousarray(vectors[first], np.float32)
    digest = hashlib.blake2b(keys.tobytes(), digest_size=16)
    digest.update(rows.tobytes())
    width, digits = int(rows.shape[1]), digest.hexdigest()
    description = description_of_vectors(name, digits, digits, width, "given")
    store = FeatureStore.create(root / f"{name}-{digits[:12]}", description)
    missing = ~store.contains(keys)
    if missing.any():
        with store.writer() as writer:
            writer.append(keys[missing], rows[missing])
    return EmbedReport(
        texts=len(texts),
        computed=int(missing.sum()),
        seconds=time.perf_counter() - began,
        dtype="float32",
        device="none",
        stores=(EmbeddedLayer(0, digits, store.folder),),
        notes=(f"{width} dimensions as given, stored as float32; no encoder goes with them",),
    )
