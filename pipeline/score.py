"""Stage three: what each prefix of a trained head's embedding knows of each level of the hierarchy.

A score is stored beside its run (scores.json), under its protocol and k, and computed at most once: the same run scored
in the same way again is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import cache
import heads
from pipeline.answers import Answers
from pipeline.comparison import Entry
from pipeline.errors import PipelineError
from pipeline.features import LabelledFeatures
from pipeline.naming import names
from pipeline.protocols import gallery_grid, leave_one_out, score_embeddings
from pipeline.runs import Run

PROTOCOLS = ("gallery", "leave-one-out")
SCORING = 1  # a change in how accuracy is measured gets another number: scores kept under an older one are not read


def score_run(run: Run, features: LabelledFeatures, protocol: str, k: int = 5) -> dict[str, Any]:
    """The score record of one run under one protocol, as `--json` prints it.

    :raises PipelineError: if the run was trained on other features.
    """
    _check_belongs(run, features)
    stored = [score for score in stored_scores(run) if score.get("scoring") == SCORING]
    for score in stored:
        if (score["protocol"], score["k"]) == (protocol, k):
            return score
    head = run.load()
    answers = answer(head, features, protocol, k)
    score = {**_named(run, features), **answers.to_dict(_classifier_accuracies(head, features))}
    with cache.atomic_file(run.folder / "scores.json") as partial:
        partial.write_text(json.dumps([*stored, score], indent=1), encoding="utf-8")
    return score


def score_grid(run: Run, features: LabelledFeatures, sizes: Sequence[int], k: int = 5) -> list[dict[str, Any]]:
    """The 2 x 2: score records of galleries of these sizes, drawn from training rows and from held-out rows.

    :raises PipelineError: if the run was trained on other features, or a size is more than there are rows.
    """
    _check_belongs(run, features)
    head = run.load()
    train, train_labels = features.split("train")
    test, test_labels = features.split("test")
    cells = gallery_grid(
        head.embed(train), train_labels, head.embed(test), test_labels, sizes=sizes, scale_dim=head.dims, k=k
    )
    return [{**_named(run, features), **cell.to_dict()} for cell in cells]


def entries(runs: Sequence[Run], features: LabelledFeatures, protocol: str, k: int = 5) -> Iterator[Entry]:
    """Every answer of every run, named so that runs are paired over seeds: what comparisons and claims are made of."""
    for name, run in zip(names([run.record for run in runs]), runs, strict=True):
        _check_belongs(run, features)
        yield Entry(name, run.seed, answer(run.load(), features, protocol, k))


def answer(head: heads.FractalHead, features: LabelledFeatures, protocol: str, k: int = 5) -> Answers:
    """Every answer of nearest neighbours in a head's embeddings of the test split, under one of `PROTOCOLS`."""
    test, test_labels = features.split("test")
    if protocol == "leave-one-out":
        return leave_one_out(head.embed(test), test_labels, scale_dim=head.dims, k=k)
    train, train_labels = features.split("train")
    return score_embeddings(head.embed(train), train_labels, head.embed(test), test_labels, scale_dim=head.dims, k=k)


def stored_scores(run: Run) -> list[dict[str, Any]]:
    """The scores kept beside a run; none if the file is absent or unreadable (they are computed again)."""
    try:
        scores = json.loads((run.folder / "scores.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return scores if isinstance(scores, list) else []


def _named(run: Run, features: LabelledFeatures) -> dict[str, Any]:
    return {
        "run": run.id,
        "scoring": SCORING,
        "dataset": features.dataset.id,
        "backbone": features.backbone,
        "layer": features.layer,
        "method": run.method,
        "head": run.record["head"],
        "seed": run.seed,
        "hyperparameters": run.record["hyperparameters"],
    }


def _classifier_accuracies(head: heads.FractalHead, features: LabelledFeatures) -> list[list[float | None]]:
    """Accuracy of the head's own classifiers on the test split: a row a prefix, a number a level."""
    test, labels = features.split("test")
    return [
        [
            None if probabilities is None else float((probabilities.argmax(axis=1) == labels[:, level]).mean())
            for level, probabilities in enumerate(head.classify(test, dim=dim))
        ]
        for dim in head.dims
    ]


def _check_belongs(run: Run, features: LabelledFeatures) -> None:
    if run.record["dataset"] != features.dataset.id:
        raise PipelineError(
            f"run {run.id} was trained on {run.record['dataset']}, not on {features.dataset.id}",
            f"name its dataset: --dataset {run.record['dataset']}",
        )
    if run.record["fingerprint"] != features.fingerprint:
        raise PipelineError(
            f"run {run.id} was trained on features {run.record['fingerprint'][:12]} of {run.record['backbone']}, "
            f"not on {features.fingerprint[:12]} of {features.backbone}",
            f"name the features it belongs to: --backbone {run.record['backbone']}-{run.record['fingerprint'][:12]}",
        )
