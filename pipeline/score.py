"""Stage three: what each prefix of a trained head's embedding knows of each level of the hierarchy.

A score is stored beside its run (scores.json), under its protocol and k, and computed at most once: the same run scored
in the same way again is read.
"""

from __future__ import annotations

import json
from typing import Any

import cache
from pipeline.errors import PipelineError
from pipeline.features import LabelledFeatures
from pipeline.protocols import leave_one_out, score_embeddings
from pipeline.runs import Run

PROTOCOLS = ("gallery", "leave-one-out")


def score_run(run: Run, features: LabelledFeatures, protocol: str, k: int = 5) -> dict[str, Any]:
    """The score record of one run under one protocol, as `--json` prints it.

    :raises PipelineError: if the run was trained on other features.
    """
    _check_fingerprint(run, features)
    stored = stored_scores(run)
    for score in stored:
        if score["protocol"] == protocol and score["k"] == k and score["dataset"] == features.dataset.id:
            return score
    score = {
        "run": run.id,
        "dataset": features.dataset.id,
        "backbone": features.backbone,
        "method": run.method,
        "head": run.record["head"],
        "seed": run.seed,
        "protocol": protocol,
        "k": k,
        **_measure(run, features, protocol, k),
    }
    with cache.atomic_file(run.folder / "scores.json") as partial:
        partial.write_text(json.dumps([*stored, score], indent=1), encoding="utf-8")
    return score


def stored_scores(run: Run) -> list[dict[str, Any]]:
    """The scores kept beside a run; none if the file is absent or unreadable (they are computed again)."""
    try:
        scores = json.loads((run.folder / "scores.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return scores if isinstance(scores, list) else []


def _check_fingerprint(run: Run, features: LabelledFeatures) -> None:
    if run.record["fingerprint"] != features.fingerprint:
        raise PipelineError(
            f"run {run.id} was trained on features {run.record['fingerprint'][:12]} of {run.record['backbone']}, "
            f"not on {features.fingerprint[:12]} of {features.backbone}",
            f"name the features it belongs to: --backbone {run.record['backbone']}-{run.record['fingerprint'][:12]}",
        )
