"""`joint` as it comes against everything else, on whole datasets: accuracy, paired intervals, label paths, seconds.

    python benchmarks/heads/joint.py --features build/features.npz --device cuda --json benchmarks/results/joint.json

Test split, five seeds, both protocols (training gallery, and leave-one-out); nothing is chosen on test texts. Against
it: `lda`, `pca`, `features`; `v5` and `mrl` as published, and matched to joint (its head, learning rate and schedule,
its number of updates, and its rows per update); its ablations; and a logistic regression with C chosen on validation,
whose coarse answer is its answer's ancestor. Beside a row's seconds stand the operations of one of its fits, as
`pipeline.cost.head` counts a step, times the steps; choosing is left out, and a closed form has none. Differences are
paired over texts and seeds, a 95 % interval by bootstrap over texts; p-values are those of a paired t-test over texts
(means over seeds), Holm's over all rows of one dataset and protocol. Then how often the labels of a row are a path of
the tree: one argmax per level, and one joint decoding, with each level's accuracy.
"""

from __future__ import annotations

import argparse
import time
from itertools import chain, product
from typing import Any, NamedTuple

import numpy as np

import heads
from benchmarks.heads.fit import SEEDS, Features, add_sources, datasets_of, numbers
from benchmarks.measured import Results, machine
from heads.methods import method_named
from heads.presets import HeadShape
from pipeline.cost.head import step
from pipeline.evaluation.protocols import leave_one_out, score_embeddings
from pipeline.evaluation.statistics import bootstrap_interval, holm, paired_test

PROTOCOLS = ("gallery", "leave-one-out")
MATCHED = {"lr": 2e-3, "schedule": "one-cycle"}


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
    correct: dict[str, dict[str, Scored]] = {protocol: {} for protocol in PROTOCOLS}
    joint: list[heads.FractalHead] = []
    for name, (method, settings) in rivals(choice).items():
        began = time.perf_counter()
        fitted = heads.fit_many(
            train, labels, seeds=options.seeds, method=method, validation=data.splits["val"], device=options.device,
            **settings,
        )  # fmt: skip
        took = time.perf_counter() - began
        joint = [one.head for one in fitted] if name == "joint" else joint
        gflop = operations(method, settings, fitted[0].head.shape, len(train)) / 1e9
        remark = f"{len(fitted)} heads in {took:.2f} s"
        results.add(f"{data.name}: {name}, one fit", gflop, "GFLOP", remark, seconds=took)
        for protocol in PROTOCOLS:
            right = correct[protocol][name] = scored(protocol, [one.head for one in fitted], data, options.device)
            show(f"{data.name}: {name}", right.means, results, f"{len(fitted)} heads", protocol)
    regression = heads.fit_logistic(train, labels, validation=data.splits["val"], device=options.device)
    flat = Scored((regression.predict(test) == test_labels)[None, None].astype(float), np.arange(len(test)))
    show(f"{data.name}: logistic regression", flat.means, results, regression.reason, "gallery")
    correct["gallery"]["logistic regression"] = flat
    for protocol, rows in correct.items():
        compare(f"{data.name}, {protocol}", rows, results)
    paths(data, joint, results)


def operations(method: str, settings: dict[str, Any], shape: HeadShape, rows: int) -> float:
    """Operations of one seed's training, 0 of a closed form."""
    known = {name: value for name, value in settings.items() if name not in ("choice", "head")}
    if (choice := settings.get("choice")) is not None:
        if choice.closed_form:
            return 0.0
        known["epochs"] = choice.epochs
    chosen = heads.hyperparameters(method, **known)
    batch = min(chosen["batch_size"], rows)
    steps = chosen["epochs"] * (rows // batch) if batch else 0
    return float(steps and steps * step(method_named(method), shape, batch).total)


class Scored(NamedTuple):
    """Whether answers are right, float64 [seeds, J, answers, L], and the text that each is about."""

    right: np.ndarray
    text: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Accuracy in percent, [J, L]."""
        return np.asarray(100 * self.right.mean(axis=(0, 2)))


def scored(protocol: str, trained: list[heads.FractalHead], data: Features, device: str) -> Scored:
    """Ask the test texts by one protocol."""
    (train, labels), (test, test_labels) = data.splits["train"], data.splits["test"]
    found = []
    for head in trained:
        if protocol == "gallery":
            found.append(score_embeddings(head.embed(train), labels, head.embed(test), test_labels, device=device))
        else:
            found.append(leave_one_out(head.embed(test), test_labels, device=device))
    return Scored(np.stack([one.correct for one in found]).astype(float), np.asarray(found[0].query_index))


def show(what: str, table: np.ndarray, results: Results, remark: str, protocol: str) -> None:
    """Accuracy at the shortest and the longest prefix, of [J, L]."""
    said = " | ".join("/".join(f"{value:.2f}" for value in row) for row in (table[0], table[-1]))
    results.add(f"{what}, {protocol}", float(table[0, -1]), "%", f"{said}; {remark}", accuracies=table.tolist())


def compare(where: str, rows: dict[str, Scored], results: Results) -> None:
    """Differences joint - other at every prefix and level; each other's lowest end of an interval is a row."""
    ours = rows["joint"]
    seeds, prefixes, _, levels = ours.right.shape
    found: dict[str, list[dict[str, Any]]] = {}
    for name, other in rows.items():
        cells = found[name] = []
        if name == "joint":
            continue
        theirs = other.right[:, np.minimum(np.arange(prefixes), other.right.shape[1] - 1)]
        gaps = ours.right - (theirs if len(theirs) == seeds else theirs.mean(axis=0))  # [seeds, J, answers, L]
        flat = gaps.transpose(0, 2, 1, 3).reshape(-1, prefixes, levels)
        low, high = np.moveaxis(bootstrap_interval(flat, np.tile(ours.text, seeds), span=(-1.0, 1.0)), -1, 0)
        for j, level in product(range(prefixes), range(levels)):
            gap = gaps[:, j, :, level]
            by_text = np.bincount(ours.text, gap.mean(axis=0)) / np.maximum(np.bincount(ours.text), 1)
            p = paired_test(by_text[np.unique(ours.text)]).p
            span = [float(low[j, level]), float(high[j, level])]
            cells.append({"dim": 64 * (j + 1), "level": level, "mean": float(gap.mean()), "ci95": span, "p": p})
    for cell, adjusted in zip(
        chain(*found.values()), holm([cell["p"] for cell in chain(*found.values())]), strict=True
    ):
        cell["p_holm"] = adjusted
    for name, cells in found.items():
        if name == "joint":
            continue
        worst = min(cells, key=lambda cell: cell["ci95"][0])
        first = next(cell for cell in cells if cell["dim"] == 64 and cell["level"] == levels - 1)
        low, high = first["ci95"]
        remark = f"at 64 dims, finest: {100 * first['mean']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
        results.add(
            f"{where}: joint - {name}, lowest end", 100 * worst["ci95"][0], "points",
            f"{worst['dim']} dims, level {worst['level']}; {remark}, Holm p {first['p_holm']:.2g}", cells=cells,
        )  # fmt: skip


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
