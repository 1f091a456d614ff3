"""`joint` as it comes against everything else, on whole datasets: accuracy, paired intervals, label paths, seconds.

    python benchmarks/heads/joint.py --features build/features.npz --device cuda --json benchmarks/results/joint.json

Test split, training gallery, five seeds; nothing is chosen on test texts. Against it: `lda`, `pca`, `features`; `v5`
and `mrl` as published, and matched to joint (its head, learning rate and schedule, its number of updates, and its
rows per update); its ablations; and a logistic regression with C chosen on validation, whose coarse answer is its
answer's ancestor. Differences are paired over texts and seeds, a 95 % interval by bootstrap over texts. Then how
often the labels of a row are a path of the tree: one argmax per level, and one joint decoding, with each level's
accuracy.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import heads
from benchmarks.heads.fit import SEEDS, Features, Results, add_sources, datasets_of, machine, numbers
from pipeline.evaluation.protocols import score_embeddings
from pipeline.evaluation.statistics import bootstrap_interval

MATCHED = {"lr": 1e-3, "schedule": "one-cycle"}


def rivals(choice: heads.Choice) -> dict[str, tuple[str, dict[str, Any]]]:
    """Rows of the table: name, method, settings."""
    head, epochs = choice.head, max(choice.epochs, 1)
    own = {"head": head, "epochs": epochs}
    return {
        "joint": ("joint", {"choice": choice}),
        "lda": ("lda", {}),
        "pca": ("pca", {}),
        "features": ("features", {}),
        "v5, published": ("v5", {}),
        "mrl, published": ("mrl", {}),
        "v5, matched": ("v5", {**MATCHED, "head": head, "batch_size": 85, "epochs": max(1, round(epochs * 85 / 128))}),
        "mrl, matched": ("mrl", {**MATCHED, **own, "batch_size": 128}),
        "uniform, matched": ("uniform", {**MATCHED, **own, "batch_size": 85}),
        "joint-finest": ("joint-finest", own),
        "joint-contrast": ("joint-contrast", own),
    }


def measure(data: Features, options: argparse.Namespace, results: Results) -> None:
    """Rows of one dataset."""
    (train, labels), (test, test_labels) = data.splits["train"], data.splits["test"]
    began = time.perf_counter()
    choice = heads.choose(train, labels, validation=data.splits["val"], device=options.device)
    results.add(f"{data.name}: choosing", time.perf_counter() - began, "s", choice.reason, choice=choice.to_json())
    correct, joint = {}, []
    for name, (method, settings) in rivals(choice).items():
        began = time.perf_counter()
        fitted = heads.fit_many(
            train, labels, seeds=options.seeds, method=method, validation=data.splits["val"], device=options.device,
            **settings,
        )  # fmt: skip
        took = time.perf_counter() - began
        joint = [one.head for one in fitted] if name == "joint" else joint
        correct[name] = np.stack([scored(one.head, data, options.device) for one in fitted])
        show(f"{data.name}: {name}", correct[name], results, f"{len(fitted)} heads in {took:.2f} s")
    regression = heads.fit_logistic(train, labels, validation=data.splits["val"], device=options.device)
    flat = (regression.predict(test) == test_labels)[None, None]
    show(f"{data.name}: logistic regression", flat, results, regression.reason)
    for name, right in {**correct, "logistic regression": flat}.items():
        if name != "joint":
            compare(f"{data.name}: joint - {name}", correct["joint"], right, results)
    paths(data, joint, results)


def scored(head: heads.FractalHead, data: Features, device: str) -> np.ndarray:
    """Whether each test text is right, bool [J, q, L]."""
    (train, labels), (test, test_labels) = data.splits["train"], data.splits["test"]
    found = score_embeddings(head.embed(train), labels, head.embed(test), test_labels, device=device)
    return np.asarray(found.correct)


def show(what: str, correct: np.ndarray, results: Results, remark: str) -> None:
    """Mean accuracy at the shortest and the longest prefix, of [seeds, J, q, L]."""
    table = 100 * correct.mean(axis=(0, 2))
    said = " | ".join("/".join(f"{value:.2f}" for value in row) for row in (table[0], table[-1]))
    results.add(what, float(table[0, -1]), "%", f"{said}; {remark}", accuracies=table.tolist())


def compare(what: str, ours: np.ndarray, theirs: np.ndarray, results: Results) -> None:
    """Paired differences at every prefix and level; the lowest end of an interval is the row."""
    seeds, prefixes, texts, levels = ours.shape
    about, cells, worst = np.tile(np.arange(texts), seeds), [], (1.0, "")
    for j in range(prefixes):
        for level in range(levels):
            other = theirs[:, min(j, theirs.shape[1] - 1), :, level].astype(float)
            gap = ours[:, j, :, level] - (other if len(other) == seeds else other.mean(axis=0))
            low, high = bootstrap_interval(gap.ravel(), about, span=(-1.0, 1.0))
            cells.append({"dim": 64 * (j + 1), "level": level, "mean": float(gap.mean()), "ci95": [low, high]})
            worst = min(worst, (float(low), f"{64 * (j + 1)} dims, level {level}"))
    first = next(cell for cell in cells if cell["dim"] == 64 and cell["level"] == levels - 1)
    low, high = first["ci95"]
    remark = f"at 64 dims, finest: {100 * first['mean']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    results.add(f"{what}, lowest end", 100 * worst[0], "points", f"{worst[1]}; {remark}", cells=cells)


def paths(data: Features, trained: list[heads.FractalHead], results: Results) -> None:
    """Labels of the test texts by one argmax per level, and by one joint decoding."""
    test, labels = data.splits["test"]
    found: dict[str, list[np.ndarray]] = {"one argmax per level": [], "joint decoding": []}
    for head in trained:
        columns = head.classify(test)
        answers = [np.full(len(test), -1) if one is None else one.argmax(axis=1) for one in columns]
        found["one argmax per level"].append(np.stack(answers, axis=1))
        found["joint decoding"].append(head.predict(test).labels)
    known = {tuple(path) for split in data.splits.values() for path in split[1].tolist()}
    for how, answers in found.items():
        whole = np.mean([(one == labels).all(axis=1).mean() for one in answers])
        tree = np.mean([[tuple(row) in known for row in one.tolist()] for one in answers])
        each = "/".join(
            f"{100 * np.mean([one[:, at] == labels[:, at] for one in answers]):.2f}" for at in range(labels.shape[1])
        )
        results.add(
            f"{data.name}: {how}, paths of the tree",
            100 * float(tree),
            "%",
            f"whole path right {100 * whole:.2f}; per level {each}",
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    parser.add_argument("--seeds", type=numbers, default=list(SEEDS))
    options = parser.parse_args()
    results = Results(machine(options.device), options.json)
    for data in datasets_of(options).values():
        measure(data, options, results)


if __name__ == "__main__":
    main()
