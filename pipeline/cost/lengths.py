"""How long a dataset's texts are in a backbone's tokens, and what padding and shared beginnings make of that.

Costs are sums over texts, not the cost of a mean text, since attention grows with the square of a length. A batch that
is padded to its longest text costs more, by how much is measured on seeded random batches; a causal backbone whose
texts begin alike costs less (`cache.batching.prefix_trie`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import cache
from cache.batching import TextTokenizer, shared_lengths, token_order
from pipeline.cost.backbone import BackboneCount, small_files
from pipeline.errors import PipelineError

_BATCHES = 500
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class TextLengths:
    """Tokens of each text, int64 [n], special ones and prompt included.

    `distinct`: rows [m] of the distinct texts, which is what the cache computes. `nodes`: positions computed for those
    if every token prefix is computed once; None if the backbone is not causal, or the lengths were given.
    """

    tokens: NDArray[np.int64]
    distinct: NDArray[np.int64]
    nodes: int | None

    def summary(self) -> dict[str, float]:
        """Mean, median, 95th percentile and longest."""
        median, p95 = (int(value) for value in np.quantile(self.tokens, (0.5, 0.95), method="lower"))
        return {"mean": float(self.tokens.mean()), "median": median, "p95": p95, "max": int(self.tokens.max())}


def measured_lengths(texts: Sequence[str], backbone: cache.backbone.Backbone, *, causal: bool) -> TextLengths:
    """Tokenize texts as `embed` would.

    :raises PipelineError: if the backbone's tokenizer is not here and cannot be had.
    """
    sequences = _tokenizer(backbone).encode([backbone.prompt + text for text in texts])
    distinct = distinct_rows(texts)
    if not causal or backbone.pooling != "last":
        return TextLengths(sequences.lengths, distinct, None)
    once = sequences.take(distinct)
    ordered = once.take(token_order(once))
    return TextLengths(sequences.lengths, distinct, int((ordered.lengths - shared_lengths(ordered)).sum()))


def _tokenizer(backbone: cache.backbone.Backbone) -> TextTokenizer:
    remedy = "copy its tokenizer.json there, or count every text as so long: --tokens 128"
    try:
        folder = small_files(backbone)
        if not any((folder / name).is_file() for name in _TOKENIZERS):
            raise PipelineError(f"backbone {backbone.name}: no tokenizer in {folder}", remedy)
        return TextTokenizer(folder, backbone)
    except cache.CacheError as error:
        raise PipelineError(
            f"texts cannot be counted in tokens of {backbone.name}, which takes its tokenizer and no weights: {error}",
            f"count every text as so long: --tokens 128; or {error.remedy}",
        ) from error


def distinct_rows(texts: Sequence[str]) -> NDArray[np.int64]:
    """Where each distinct text stands first."""
    rows: dict[str, int] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text, row)
    return np.fromiter(rows.values(), np.int64)


@dataclass(frozen=True)
class Padded:
    """What a random batch padded to its longest text costs per text, on average: positions and products."""

    positions: float
    products: float


def padded(backbone: BackboneCount, tokens: NDArray[np.int64], batch: int) -> Padded:
    """Measure padding on seeded random batches of these lengths."""
    drawn = np.random.default_rng(0).integers(0, len(tokens), (_BATCHES, batch))
    longest = tokens[drawn].max(axis=1)
    return Padded(float(longest.mean()), backbone.products(longest) / _BATCHES)
