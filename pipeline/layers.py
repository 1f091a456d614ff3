"""Which layer makes the better feature: what the validation split says of heads trained on several.

In a base model a middle layer often knows more of a text's meaning than the last. Each layer's features have their own
store and runs, so nothing is computed here: the runs' histories hold what every head scored on the validation texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean

from pipeline.runs import Run

Group = tuple[str, str, tuple[tuple[str, object], ...]]


def layer_sentences(runs: Iterable[Run]) -> list[str]:
    """For each method that was trained alike on several layers, which of them is ahead on validation.

    :param runs: of one dataset and backbone, whatever the layer; those without a validated history are left out.
    """
    groups: dict[Group, dict[int, list[float]]] = {}
    for run in runs:
        accuracy = _validated(run)
        if accuracy is not None:
            group = (run.method, str(run.record["head"]), tuple(sorted(run.record["hyperparameters"].items())))
            groups.setdefault(group, {}).setdefault(int(run.record["layer"]), []).append(accuracy)
    return [_sentence(group, layers) for group, layers in groups.items() if len(layers) > 1]


def _validated(run: Run) -> float | None:
    """Accuracy of the epoch kept, mean of level 0 and the finest, leave-one-out on the full vector."""
    import polars as pl

    try:
        history = pl.read_parquet(run.folder / "history.parquet")
        (score,) = history.filter(pl.col("epoch") == int(run.record["best_epoch"]))["score"]
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return None
    return None if score is None else float(score) / 2


def _sentence(group: Group, layers: dict[int, list[float]]) -> str:
    means = {layer: mean(scores) for layer, scores in layers.items()}
    ranked = sorted(means, key=lambda layer: (-means[layer], layer))
    each = ", ".join(f"layer {layer} {means[layer]:.1%} (n = {len(layers[layer])})" for layer in ranked)
    return f"{group[0]}, {group[1]} head, on validation (mean of the first and the finest level): {each}"
