"""Texts to packed batches: tokens, prefix tries, and the attention masks that follow from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import importer

if TYPE_CHECKING:
    from cache.batching.packing import Batch, pack
    from cache.batching.prefix_trie import shared_lengths, token_order
    from cache.batching.ragged import Sequences
    from cache.batching.tokenizer import Reading, TextTokenizer, reading_of, token_lengths

__getattr__, __all__ = importer(
    __name__,
    {
        "cache.batching.packing": "Batch pack",
        "cache.batching.prefix_trie": "shared_lengths token_order",
        "cache.batching.ragged": "Sequences",
        "cache.batching.tokenizer": "Reading TextTokenizer reading_of token_lengths",
    },
)
