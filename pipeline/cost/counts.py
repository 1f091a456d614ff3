"""What training a head and using it costs, counted: with the backbone in the loop and with the cache.

In the loop every step sends its texts through the frozen backbone again: published are four passes for each anchor
(two terms, an anchor and a positive each), so 4 x epochs per training text. With the cache what remains is one pass per
distinct text of the dataset, once, whatever is trained on it later. A step's own products and its optimiser stay.
What is used later is the backbone and the head for each text, a search per query, and the bytes of each document.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads import HeadsError, hyperparameters, is_closed_form
from heads.methods import method_named
from heads.presets import HeadShape, preset
from pipeline.cost import head as head_products
from pipeline.cost.backbone import BackboneCount
from pipeline.cost.lengths import TextLengths, padded

PUBLISHED_PASSES = 4
PUBLISHED_METHODS = ("v5", "mrl")
PUBLISHED_TOKENS = 128
OPTIMISER_BYTES = 16
"""Bytes per parameter while training: weight, gradient and AdamW's two moments, float32 each."""
FEATURE_BYTES, STORED_BYTES, BACKBONE_BYTES = 4, 2, 2
"""Bytes per number: of features while training and in the store, of the backbone's weights."""
MILLION = 1_000_000


@dataclass(frozen=True)
class Setting:
    """What is counted: a backbone, a dataset's lengths and classes, a head.

    `train`: rows of the training split; `anchors`: how many of them have a positive. `epochs`, `batch`: None for each
    method's own.
    """

    backbone: BackboneCount
    lengths: TextLengths
    train: NDArray[np.int64]
    anchors: int
    classes: tuple[int, ...]
    head: str = "paper"
    batch: int | None = None
    epochs: int | None = None

    def shape(self, method: str) -> HeadShape:
        """The head of a method."""
        temperature = method_named(method).settings.get("proxy_temperature")
        return HeadShape.of(preset(self.head), self.backbone.hidden, self.classes, proxy_temperature=temperature)


@dataclass(frozen=True)
class Fit:
    """A whole fit: passes through the backbone, their products, the head's operations, and their sum."""

    passes: int
    backbone: int
    head: int

    @property
    def total(self) -> int:
        """Everything."""
        return self.backbone + self.head


@dataclass(frozen=True)
class Training:
    """A method's training, counted.

    `passes`: backbone passes per step with the backbone in the loop; `published_backbone`, `loop_backbone` and
    `padded_backbone` are their products with 128 tokens per text, with the texts' own lengths, and with the padding of
    a random batch. `cached` needs the features of every distinct text of the dataset. `bytes` of memory: the head's
    weights with gradients and optimiser, the training features in float32, the backbone's weights in bfloat16.
    """

    method: str
    batch: int
    epochs: int
    steps: int
    parameters: int
    step: head_products.StepCount
    passes: int
    published_backbone: int
    loop_backbone: int
    padded_backbone: int
    loop: Fit
    cached: Fit
    next_fit: Fit
    bytes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Spell it out for JSON."""
        record = asdict(self)
        record["step"]["losses"]["forward"] = self.step.losses.forward
        record["step"]["total"] = self.step.total
        for name, fit in (("loop", self.loop), ("cached", self.cached), ("next_fit", self.next_fit)):
            record[name]["total"] = fit.total
        return record


def training(setting: Setting, method: str) -> Training:
    """Count a method's training.

    :raises heads.HeadsError: if there is no such method, it takes no steps, or the batch cannot be used.
    """
    if is_closed_form(method):
        raise HeadsError(f"{method} is a closed form: it has no training steps to count", "leave it out of --methods")
    chosen = hyperparameters(method, batch_size=setting.batch, epochs=setting.epochs)
    batch = min(chosen["batch_size"], setting.anchors)
    steps = (setting.anchors // batch) * chosen["epochs"]
    shape = setting.shape(method)
    step = head_products.step(method_named(method), shape, batch)
    passes = PUBLISHED_PASSES * batch if method in PUBLISHED_METHODS else step.rows
    tokens, backbone = setting.lengths.tokens, setting.backbone
    own = backbone.products(tokens[setting.train]) / len(setting.train)
    with_padding = padded(backbone, tokens[setting.train], batch)
    head = steps * step.total
    distinct = setting.lengths.distinct
    return Training(
        method=method,
        batch=batch,
        epochs=chosen["epochs"],
        steps=steps,
        parameters=shape.parameters,
        step=step,
        passes=passes,
        published_backbone=passes * backbone.products(PUBLISHED_TOKENS),
        loop_backbone=round(passes * own),
        padded_backbone=round(passes * with_padding.products),
        loop=Fit(passes * steps, round(passes * steps * with_padding.products), head),
        cached=Fit(len(distinct), backbone.products(tokens[distinct]), head),
        next_fit=Fit(0, 0, head),
        bytes={
            "head": OPTIMISER_BYTES * shape.parameters,
            "features": FEATURE_BYTES * backbone.hidden * len(setting.train),
            "backbone": BACKBONE_BYTES * backbone.parameters,
        },
    )


def encodings(setting: Setting, shape: HeadShape) -> list[dict[str, Any]]:
    """Count texts of the dataset's typical lengths, and of the published one, through backbone and head.

    `other` are the backbone's operations that are no products.
    """
    backbone, summary = setting.backbone, setting.lengths.summary()
    chosen = {name: round(summary[name]) for name in ("mean", "p95", "max")} | {"published": PUBLISHED_TOKENS}
    return [
        {
            "text": name,
            "tokens": tokens,
            "backbone": backbone.products(tokens),
            "head": head_products.head_forward(shape),
            "attention_share": backbone.attention_share(tokens),
            "other": backbone.other.count(tokens),
        }
        for name, tokens in chosen.items()
    ]


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
    return [Search(n, dim, 2 * dim * n, 4 * dim * n) for n in documents for dim in _dims(shape)]


def storage(shape: HeadShape, hidden: int) -> dict[str, Any]:
    """Bytes per document of each prefix and number format, and of the stored feature."""
    return {
        "embedding": [{"dim": dim, "float32": 4 * dim, "float16": 2 * dim, "int8": dim} for dim in _dims(shape)],
        "feature": {"dim": hidden, "bytes": hidden * STORED_BYTES},
        "key": 16,
        "checksum": 8,
    }


def _dims(shape: HeadShape) -> list[int]:
    return [shape.scale_dim * (j + 1) for j in range(shape.scales)]
