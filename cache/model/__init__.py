"""Packed batches to pooled hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import importer

if TYPE_CHECKING:
    from cache.model.encoder import Encoder

__getattr__, __all__ = importer(
    __name__,
    {
        "cache.model.encoder": "Encoder",
    },
)
