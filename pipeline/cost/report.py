"""From a dataset, a backbone and a head to every figure of `pipeline cost`, one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

import cache
import data
from cache.backbone import is_causal
from heads.training.sampling import Classes
from pipeline.cost.backbone import config_of, count_config
from pipeline.cost.counts import (
    MILLION,
    Search,
    Setting,
    Training,
    dataset_encoding,
    encodings,
    searches,
    storage,
    training,
)
from pipeline.cost.lengths import TextLengths, distinct_rows, measured_lengths
from pipeline.cost.measure import BackboneSpeed, backbone_speed, machine, search_seconds, step_seconds

Progress = Callable[[int, int, str], None]


def setting_of(
    dataset: data.Dataset,
    backbone: cache.backbone.Backbone,
    *,
    head: str,
    batch: int | None,
    epochs: int | None,
    tokens: int | None,
) -> Setting:
    """Put together what is counted.

    :param backbone: with the prompt that is put before every text.
    :param tokens: count every text as so long instead of tokenizing it.
    :raises cache.CacheError: if the backbone's configuration or tokenizer is not here and cannot be had.
    :raises heads.HeadsError: if no two training rows share a finest class, as a fit would.
    """
    texts, config = dataset.texts, config_of(backbone)
    if tokens is None:
        lengths = measured_lengths(texts, backbone, causal=is_causal(config))
    else:
        lengths = TextLengths(np.full(len(texts), tokens, np.int64), distinct_rows(texts), None)
    train = dataset.split_rows("train")
    anchors = len(Classes(torch.from_numpy(dataset.labels[train])).anchors)  # the rows that a fit can use
    classes = tuple(len(names) for names in dataset.hierarchy.classes)
    return Setting(count_config(backbone.name, config), lengths, train, anchors, classes, head, batch, epochs)


def cost(
    setting: Setting,
    dataset: data.Dataset,
    backbone: cache.backbone.Backbone,
    methods: Sequence[str],
    *,
    measure: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Count everything, and measure what takes a second or two.

    :param progress: told what is being measured, and how many of how many measurements are done.
    :raises heads.HeadsError: if a method or a setting cannot be used.
    """
    trained = [training(setting, method) for method in methods]
    shape = setting.shape(methods[0])
    found = searches(shape, (len(setting.train), MILLION))
    measured = _measured(setting, dataset, backbone, trained, found, progress) if measure else _Measured()
    counted = setting.backbone
    return {
        "dataset": dataset.id,
        "backbone": asdict(counted),
        "head": setting.head,
        "classes": list(setting.classes),
        "tokens": setting.lengths.summary(),
        "training": [_with_seconds(one, measured) for one in trained],
        "encoding": encodings(setting, shape),
        "dataset_encoding": dataset_encoding(setting, trained[0].batch),
        "search": [{**asdict(row), "seconds": measured.searches.get(row)} for row in found],
        "storage": storage(shape, counted.hidden),
        "speed": None if measured.backbone is None else asdict(measured.backbone),
        "not_measured": measured.reason,
        "machine": machine() if measure else None,
    }


@dataclass(frozen=True)
class _Measured:
    """Seconds: of a step by method, of a query by search, of the backbone; `reason` why that is None."""

    steps: Mapping[str, float] = field(default_factory=dict)
    searches: Mapping[Search, float | None] = field(default_factory=dict)
    backbone: BackboneSpeed | None = None
    reason: str = "not asked for"


def _measured(
    setting: Setting,
    dataset: data.Dataset,
    backbone: cache.backbone.Backbone,
    trained: Sequence[Training],
    found: Sequence[Search],
    progress: Progress,
) -> _Measured:
    total = len(trained) + 2
    progress(0, total, "search")  # first: threads that the others leave waiting would slow it
    queries = {row: search_seconds(row) for row in found}
    steps = {}
    for done, one in enumerate(trained, start=1):
        progress(done, total, f"steps of {one.method}")
        labels = dataset.labels[setting.train]
        steps[one.method] = step_seconds(
            one.method, labels, setting.backbone.hidden, head=setting.head, batch=one.batch
        )
    progress(total - 1, total, backbone.name)
    try:
        speed = backbone_speed(backbone, setting.backbone, dataset.texts, setting.lengths)
    except cache.CacheError as error:
        return _Measured(steps, queries, None, str(error))
    return _Measured(steps, queries, speed, "")


def _with_seconds(counted: Training, measured: _Measured) -> dict[str, Any]:
    step = measured.steps.get(counted.method)
    a_text = None if measured.backbone is None else measured.backbone.seconds_per_text
    found: dict[str, float | None] = {"step": step}
    for name, fit in (("loop", counted.loop), ("cached", counted.cached), ("next_fit", counted.next_fit)):
        known = step is not None and not (fit.passes and a_text is None)
        found[name] = counted.steps * (step or 0.0) + fit.passes * (a_text or 0.0) if known else None
    return {**counted.to_dict(), "seconds": found}
