"""Which layer makes the better feature: what the validation split says of heads trained on several.

In a base model a middle layer often knows more of a text's meaning than the last. Each layer's features have their own
store and runs, so nothing is computed here: the runs' histories hold what every head scored on the validation texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean

from pipeline.workspace.runs import Run


def layer_sentences(runs: Iterable[Run]) -> list[str]:
    """For each method that was trained alike on several layers, which of them is ahead on validation.

    :param runs: of one dataset and backbone, whatever the layer; those without a validated history are left out.
    """
    runs = list(runs)
    if len({run.record["layer"] for run in runs}) < 2:  # no history has to be read
        return []
    groups: dict[tuple[object, ...], dict[int, list[float]]] = {}
    for run in runs:
        accuracy = _validated(run)
        if accuracy is not None:
            group = (run.method, run.record["head"], *sorted(run.record["hyperparameters"].items()))
            groups.setdefault(group, {}).setdefault(int(run.record["layer"]), []).append(accuracy)
    return [_sentence(str(group[0]), str(group[1]), layers) for group, layers in groups.items() if len(layers) > 1]


def _validated(run: Run) -> float | None:
    """Accuracy of the epoch kept, mean of level 0 and the finest, leave-one-out on the full vector."""
    history = run.history()
    if history is None:
        return None
    scores = [row["score"] for row in history.to_dicts() if row["epoch"] == run.record["best_epoch"]]
    return None if scores in ([], [None]) else float(scores[0]) / 2


def _sentence(method: str, head: str, layers: dict[int, list[float]]) -> str:
    means = {layer: mean(scores) for layer, scores in layers.items()}
    ranked = sorted(means, key=lambda layer: (-means[layer], layer))
    each = ", ".join(f"layer {layer} {means[layer] * 100:.1f} % (n = {len(layers[layer])})" for layer in ranked)
    return f"{method}, {head} head, on validation (mean of the first and the finest level): {each}"
