"""What a trained head costs to use: encoding a text, searching, storing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heads.presets import HeadShape
from pipeline.cost import head as head_products
from pipeline.cost.lengths import padded
from pipeline.cost.training import PUBLISHED_TOKENS, Setting

MILLION = 1_000_000


@dataclass(frozen=True)
class Encoding:
    """Products of one text of `tokens` tokens: backbone, head, and the share of attention in the backbone's.

    `other` are the backbone's operations that are no products.
    """

    text: str
    tokens: int
    backbone: int
    head: int
    attention_share: float
    other: int


def encodings(setting: Setting, shape: HeadShape) -> list[Encoding]:
    """Count texts of the dataset's typical lengths, and of the published one."""
    summary = setting.lengths.summary()
    chosen = {name: round(summary[name]) for name in ("mean", "p95", "max")} | {"published": PUBLISHED_TOKENS}
    return [_encoding(setting, shape, name, tokens) for name, tokens in chosen.items()]


def _encoding(setting: Setting, shape: HeadShape, name: str, tokens: int) -> Encoding:
    backbone = setting.backbone
    return Encoding(
        text=name,
        tokens=tokens,
        backbone=backbone.products(tokens),
        head=head_products.head_forward(shape),
        attention_share=backbone.attention_share(tokens),
        other=backbone.other.count(tokens),
    )


def dataset_encoding(setting: Setting, batch: int) -> dict[str, Any]:
    """Positions and products of all distinct texts: their own tokens, padded in random batches, shared beginnings."""
    own = setting.lengths.tokens[setting.lengths.distinct]
    in_batches = padded(setting.backbone, own, batch)
    return {
        "texts": len(own),
        "tokens": int(own.sum()),
        "products": setting.backbone.products(own),
        "padded_tokens": round(in_batches.positions * len(own)),
        "padded_products": round(in_batches.products * len(own)),
        "nodes": setting.lengths.nodes,
        "batch": batch,
    }


@dataclass(frozen=True)
class Search:
    """One query against `documents` embeddings of `dim` dimensions: products, and bytes read in float32."""

    documents: int
    dim: int
    flops: int
    bytes_read: int


def searches(shape: HeadShape, documents: tuple[int, ...]) -> list[Search]:
    """Count an exact search at each prefix: 2 d N."""
    dims = [shape.scale_dim * (j + 1) for j in range(shape.scales)]
    return [Search(n, dim, 2 * dim * n, 4 * dim * n) for n in documents for dim in dims]


def storage(shape: HeadShape, hidden: int, feature_bytes: int) -> dict[str, Any]:
    """Bytes per document of each prefix and number format, and of the stored feature."""
    dims = [shape.scale_dim * (j + 1) for j in range(shape.scales)]
    return {
        "embedding": [{"dim": dim, "float32": 4 * dim, "float16": 2 * dim, "int8": dim} for dim in dims],
        "feature": {"dim": hidden, "bytes": hidden * feature_bytes},
        "key": 16,
        "checksum": 8,
    }
