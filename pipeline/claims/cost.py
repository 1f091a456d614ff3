"""The published claims on cost, recounted: training-tie, loss-flops, head-backward, encoding.

They are about Qwen3-0.6B, batches of 24, texts of 128 tokens, ten domains and 150 intents, so they are counted there
whatever dataset and backbone is at hand: no weights and no texts are needed. Counts have no sampling error, so figures
have no interval.

Published per batch is the backbone's cost of one text (4 x 90 GFLOPs); figures named `v5` and `mrl` count the 24 that a
batch has. Beside them stand the figures that the comparison leaves out, by the names in the table below. A difference
that is small beside four passes through a backbone is small because the passes are equal by construction: the cache
takes them away, and what is left is not equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from heads.methods import method_named
from pipeline.claims.published import CLAIMS, Figure, Measurement
from pipeline.cost import head as head_products
from pipeline.cost.backbone import QWEN3_06B, count_config
from pipeline.cost.counts import PUBLISHED_PASSES, PUBLISHED_TOKENS, Setting
from pipeline.cost.lengths import TextLengths

BATCH, CLASSES = 24, (10, 150)
TIE = 1e-5
"""The published difference in training cost, 0.001 %."""


def cost_measurements(head: str = "paper") -> dict[str, Measurement]:
    """Recount the claims on cost: a `Measurement` by claim id, for `verdicts.judge(entries, others=...)`.

    Figures are in the unit of the claim: GFLOPs (training-tie, encoding), MFLOPs (loss-flops, head-backward).

    training-tie: `v5`, `mrl`: 24 anchors x 4 passes of 128 tokens, the head forward and backward on those rows, losses
    with their gradients, clipping and AdamW. `... as published`: the backbone counted for one text of the 24.
    `... distinct texts`: each text of the batch once, 3 an anchor for v5 (anchor, fine and coarse positive), 2 for mrl.
    `... cached`: those without the backbone. `v5 - mrl, %` and `v5 - mrl cached, %`: the difference in percent of
    mrl's. Passed if v5 and mrl are no more than 0.001 % apart.

    loss-flops: `v5`, `mrl`: products of the losses' forward pass on 24 anchors. `... one text classified`: with the
    classifiers counted for one text of the 24, which gives the published figures. Passed if v5's are fewer.

    head-backward: `v5`, `mrl`: the head's backward pass per text; `... batch`: of a batch's distinct texts. Passed if
    v5's are fewer.

    encoding: `v5`, `mrl`: backbone and head, a text of 128 tokens; `head`: the head alone; `all pairs`: with the pairs
    that the causal mask throws away. Passed if both are equal.

    :param head: preset of the head.
    """
    rows = np.arange(15_000)
    lengths = TextLengths(np.full(len(rows), PUBLISHED_TOKENS, np.int64), rows, None)
    setting = Setting(count_config("qwen3-0.6b", QWEN3_06B), lengths, rows, len(rows), CLASSES, head, BATCH)
    steps = {name: head_products.step(method_named(name), setting.shape(name), BATCH) for name in ("v5", "mrl")}
    return {
        "training-tie": _training_tie(setting, steps),
        "loss-flops": _loss_flops(steps),
        "head-backward": _head_backward(steps),
        "encoding": _encoding(setting),
    }


def recounted() -> list[dict[str, Any]]:
    """The published claims on cost beside what is counted for them."""
    counted = cost_measurements()
    return [
        {
            "id": claim.id,
            "claim": claim.claim,
            "unit": claim.unit,
            "published": dict(claim.published),
            "counted": {name: figure.value for name, figure in counted[claim.id].figures.items()},
            "tested": claim.tested,
            "passed": counted[claim.id].passed,
        }
        for claim in CLAIMS
        if claim.id in counted
    ]


def _training_tie(setting: Setting, steps: Mapping[str, head_products.StepCount]) -> Measurement:
    shape = setting.shape("v5")
    a_text = setting.backbone.products(PUBLISHED_TOKENS)
    through_head = head_products.head_forward(shape) + head_products.head_backward(shape)
    passes = PUBLISHED_PASSES * BATCH
    figures: dict[str, float] = {}
    for method, step in steps.items():
        rest = step.losses.forward + step.losses.backward + step.optimiser
        figures[method] = passes * (a_text + through_head) + rest
        figures[f"{method} as published"] = PUBLISHED_PASSES * a_text + passes * through_head + rest
        figures[f"{method} distinct texts"] = step.rows * a_text + step.total
        figures[f"{method} cached"] = step.total
    apart = figures["v5"] / figures["mrl"] - 1
    cached = figures["v5 cached"] / figures["mrl cached"] - 1
    shares = {"v5 - mrl, %": Figure(100 * apart, None), "v5 - mrl cached, %": Figure(100 * cached, None)}
    return Measurement({**_figures(figures, 1e9), **shares}, abs(apart) <= TIE)


def _loss_flops(steps: Mapping[str, head_products.StepCount]) -> Measurement:
    figures: dict[str, float] = {}
    for method, losses in ((method, step.losses) for method, step in steps.items()):
        figures[method] = losses.forward
        figures[f"{method} one text classified"] = losses.contrast + losses.margin + losses.classification // BATCH
    return Measurement(_figures(figures, 1e6), figures["v5"] < figures["mrl"])


def _head_backward(steps: Mapping[str, head_products.StepCount]) -> Measurement:
    figures: dict[str, float] = {}
    for method, step in steps.items():
        figures[method] = step.head_backward // step.rows
        figures[f"{method} batch"] = step.head_backward
    return Measurement(_figures(figures, 1e6), figures["v5"] < figures["mrl"])


def _encoding(setting: Setting) -> Measurement:
    backbone = setting.backbone
    heads_of = {method: head_products.head_forward(setting.shape(method)) for method in ("v5", "mrl")}
    totals = {method: backbone.products(PUBLISHED_TOKENS) + head for method, head in heads_of.items()}
    everything = backbone.products(PUBLISHED_TOKENS, masked=True) + heads_of["v5"]
    figures = {**totals, "head": heads_of["v5"], "all pairs": everything}
    return Measurement(_figures(figures, 1e9), totals["v5"] == totals["mrl"])


def _figures(values: dict[str, float] | dict[str, int], unit: float) -> dict[str, Figure]:
    return {name: Figure(value / unit, None) for name, value in values.items()}
