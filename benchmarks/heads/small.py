"""Small training sets: does the default pay, against what needs no training?

    python benchmarks/heads/small.py --features build/features.npz --processes 8 --json benchmarks/results/small.json

From each dataset's training split, subsamples of 300, 1,000 and 3,000 rows (stratified: two rows per class as far as
they go, the rest at random), five draws each. The gallery is the subsample, the queries are the whole test split, and
no validation rows are given. `joint` as it comes against `features` (prefixes, and all dimensions), `pca` and `lda`: at
every prefix and level the difference to the best of these, paired over texts and draws, with its 95 % interval; and how
often `joint` chose what. At the largest size, also against each candidate that `joint` chooses among, fitted whatever
validation says.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import torch

import heads
from benchmarks.heads.fit import Features, add_sources, datasets_of, numbers
from benchmarks.measured import Results, machine
from heads.choosing import CANDIDATES
from pipeline.evaluation.protocols import score_embeddings
from pipeline.evaluation.statistics import bootstrap_interval

BASELINES = ("features", "pca", "lda")


def drawn(labels: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Row numbers of a stratified subsample: two per finest class while they last, then any."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    finest = labels[order, -1]
    rank = np.empty(len(order), np.int64)  # of each row among those of its class, in the drawn order
    by_class = np.argsort(finest, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(finest[by_class])) + 1]
    rank[by_class] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    place = rng.permutation(int(finest.max()) + 1)  # which classes come first where there are too many
    first = np.lexsort((np.where(rank < 2, place[finest], np.arange(len(order))), rank >= 2))
    return np.sort(order[first[:rows]])


def one(data: Features, rows: int, draw: int, *, candidates: bool) -> dict[str, Any]:
    """Fit and score one draw: per method bool [J, q, L], and per candidate."""
    torch.set_num_threads(1)
    (train, labels), (test, test_labels) = data.splits["train"], data.splits["test"]
    taken = drawn(labels, rows, draw)
    gallery, own = train[taken], labels[taken]
    found: dict[str, Any] = {}
    raw = score_embeddings(gallery, own, test, test_labels, scale_dim=(train.shape[1],))
    found["features, all"] = raw.correct
    for method in (*BASELINES, "joint"):
        began = time.perf_counter()
        result = heads.fit_many(gallery, own, seeds=[draw], method=method, device="cpu")[0]
        seconds = time.perf_counter() - began
        head = result.head
        found[method] = score_embeddings(head.embed(gallery), own, head.embed(test), test_labels).correct
    tried: dict[str, Any] = {}
    for preset, epochs in CANDIDATES if candidates else ():
        settings: dict[str, Any] = {"head": preset, "epochs": epochs}
        head = heads.fit_many(gallery, own, seeds=[draw], method="joint", device="cpu", **settings)[0].head
        tried[f"{preset} {epochs}"] = score_embeddings(head.embed(gallery), own, head.embed(test), test_labels).correct
    return {"correct": found, "tried": tried, "chosen": result.chosen, "seconds": seconds}


def measure(data: Features, rows: int, draws: list[dict[str, Any]], results: Results) -> None:
    """Rows of one size: the default against the best baseline at each prefix and level."""
    correct = {name: np.stack([one["correct"][name] for one in draws]) for name in draws[0]["correct"]}
    chosen = Counter(f"{one['chosen']['head']} {one['chosen']['epochs']}" for one in draws)
    seconds = float(np.mean([one["seconds"] for one in draws]))
    results.add(f"{data.name}, {rows} rows: joint, mean seconds on one core", seconds, "s", dict(chosen).__repr__())
    against_best(f"{data.name}, {rows} rows", data, correct, results)
    if tried := {name: np.stack([one["tried"][name] for one in draws]) for name in draws[0]["tried"]}:
        closed = {"closed form": correct["lda"], "joint": correct["joint"]}
        against_best(f"{data.name}, {rows} rows, candidates", data, {**closed, **tried}, results)


def against_best(about: str, data: Features, correct: dict[str, np.ndarray], results: Results) -> None:
    """Rows of `joint` against the best other at each prefix and level, of bool [draws, J, q, L] each."""
    draws, prefixes, texts, levels = correct["joint"].shape
    index, ends = np.tile(np.arange(texts), draws), []
    for j, level in product(range(prefixes), range(levels)):
        cells = {name: right[:, min(j, right.shape[1] - 1), :, level] for name, right in correct.items()}
        means = {name: float(cell.mean()) for name, cell in cells.items()}
        best = max((name for name in means if name != "joint"), key=means.__getitem__)
        gap = cells["joint"].astype(float) - cells[best]
        low, high = bootstrap_interval(gap.ravel(), index, span=(-1.0, 1.0))
        ends.append((float(low), float(gap.mean())))
        where = f"{about}, {64 * (j + 1)} dims, {data.levels[level]}: joint - {best}"
        accuracies = {name: round(100 * mean, 2) for name, mean in means.items()}
        span = f"[{100 * low:.2f}, {100 * high:.2f}]"
        results.add(where, 100 * gap.mean(), "points", span, accuracies=accuracies)
    worst, gap = min(ends)[0], min(mean for _, mean in ends)
    results.add(f"{about}: lowest end of an interval", 100 * worst, "points", f"lowest mean {100 * gap:.2f}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    parser.add_argument("--sizes", type=numbers, default=[300, 1000, 3000])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    results = Results(machine("cpu"), options.json)
    with ProcessPoolExecutor(options.processes) as pool:
        for data in datasets_of(options).values():
            tasks = {
                rows: [
                    pool.submit(one, data, rows, draw, candidates=rows == max(options.sizes))
                    for draw in range(options.draws)
                ]
                for rows in options.sizes
            }
            for rows, futures in tasks.items():
                measure(data, rows, [future.result() for future in futures], results)


if __name__ == "__main__":
    main()
