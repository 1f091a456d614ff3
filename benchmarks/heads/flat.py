"""What joint's embedding loses against classifiers that look at the finest labels alone and at every number.

    python benchmarks/heads/flat.py --artifacts artifacts --json flat.json
    python benchmarks/heads/flat.py --features build/features.npz --device cuda --json flat.json

Joint's full vector and shortest prefix, 5 nearest neighbours in the training split, mean of `--seeds`, against
scikit-learn's logistic regression on the L2-normalised features and the same neighbours on the features. As the
regression's C, joint's head and epochs are chosen on the validation split, by the mean of both prefixes; every choice
is shown. Features come from where `benchmarks/heads/fit.py` takes them; with `--features` no polars is needed.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from typing import Any

import numpy as np

import heads
from benchmarks.heads.fit import SEEDS, Features, Results, add_sources, datasets_of, fitted_to, listed, machine, numbers
from pipeline.evaluation.protocols import score_embeddings
from pipeline.evaluation.statistics import bootstrap_interval

REGULARISATION = (3.0, 10.0, 30.0, 100.0, 300.0)


def measure(data: Features, options: argparse.Namespace, results: Results) -> None:
    """Rows of one dataset: the two that are flat, then joint with every head and number of epochs."""
    (train, labels), (test, test_labels) = data.splits["train"], data.splits["test"]
    regression, remark = logistic(data)
    flat = (regression == test_labels[:, -1])[:, None]
    show(f"{data.name}: logistic regression on {train.shape[1]} features, {remark}", flat, results, n=data.rows)
    raw = score_embeddings(train, labels, test, test_labels, scale_dim=(train.shape[1],), device=options.device)
    show(f"{data.name}: neighbours on {train.shape[1]} features", raw.correct[0, :, -1:], results)
    best, chosen = -1.0, ""
    for head, epochs in product(options.heads, options.epochs):
        fitted = fitted_to(data, options.device, seeds=options.seeds, method="joint", head=head, epochs=epochs)
        took = sum(one.seconds for one in fitted)
        known, query_index = right_of(fitted, data, options.device)
        validation = np.mean([correct.mean() for correct in known.values()])
        setting = f"{data.name}: joint, {head}, {epochs} epochs"
        results.add(f"{setting}, validation, mean of both prefixes", validation * 100, "%", f"fits {took:.1f} s")
        if validation > best:
            best, chosen = float(validation), setting
        for dim, correct in query_index.items():
            gap = correct.astype(float) - flat
            show(f"{setting}, {dim} dims", correct, results)
            show("  - logistic regression", gap, results, unit="points", setting=setting, dims=dim)
    results.add(f"{chosen}: chosen on validation", best * 100, "%")


def right_of(fitted: list[heads.FitResult], data: Features, device: str) -> list[dict[int, np.ndarray]]:
    """Return what the longest and the shortest prefix get right on the finest level, bool [texts, seeds].

    Of the validation split, then of the test split.
    """
    train, labels = data.splits["train"]
    galleries = [one.head.embed(train) for one in fitted]
    found = []
    for rows, its_labels in (data.splits["val"], data.splits["test"]):
        predictions = [
            score_embeddings(gallery, labels, one.head.embed(rows), its_labels, device=device)
            for one, gallery in zip(fitted, galleries, strict=True)
        ]
        dims = predictions[0].dims
        found.append({dims[j]: np.stack([some.correct[j, :, -1] for some in predictions], axis=1) for j in (-1, 0)})
    return found


def show(what: str, outcomes: np.ndarray, results: Results, unit: str = "%", **more: Any) -> None:
    """Add a row: the mean of outcomes [texts, seeds], with its interval over texts and each text's seeds."""
    texts, seeds = outcomes.shape
    query_index = np.repeat(np.arange(texts), seeds)
    span = (0.0, 1.0) if unit == "%" else (-1.0, 1.0)
    low, high = bootstrap_interval(outcomes.ravel(), query_index, span=span) * 100
    over = f"texts and {seeds} seeds" if seeds > 1 else "texts"
    each = (outcomes.mean(axis=0) * 100).tolist()
    results.add(what, outcomes.mean() * 100, unit, f"[{low:.2f}, {high:.2f}] over {over}", each_seed=each, **more)


def logistic(data: Features) -> tuple[np.ndarray, str]:
    """Label the test split by the regression whose C is best on validation; say which, and what it took."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    splits = {split: (normalize(rows), labels[:, -1]) for split, (rows, labels) in data.splits.items()}
    best, chosen, began = -1.0, None, time.perf_counter()
    for c in REGULARISATION:
        model = LogisticRegression(C=c, max_iter=300, tol=1e-5).fit(*splits["train"])
        score = model.score(*splits["val"])
        if score > best:
            best, chosen = score, model
    rounds = int(chosen.n_iter_.max())
    ended = f"{rounds} rounds" + (", not converged" if rounds >= 300 else "")
    took = time.perf_counter() - began
    return chosen.predict(splits["test"][0]), f"C={chosen.C:g}, {ended}, {len(REGULARISATION)} fits {took:.0f} s"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    parser.add_argument("--heads", type=listed, default=["paper", "wide", "reference"])
    parser.add_argument("--epochs", type=numbers, default=[heads.hyperparameters("joint")["epochs"], 40])
    parser.add_argument("--seeds", type=numbers, default=list(SEEDS))
    options = parser.parse_args()
    query_index = {**machine(options.device), "rows": options.rows}
    print(" | ".join(f"{key} {value}" for key, value in query_index.items()))
    results = Results(query_index, options.json)
    for data in datasets_of(options).values():
        measure(data, options, results)


if __name__ == "__main__":
    main()
