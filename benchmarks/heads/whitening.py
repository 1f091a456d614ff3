"""PCA whitening beside the rows of `joint.py`: principal components scaled to unit variance, no labels.

    python benchmarks/heads/whitening.py --artifacts artifacts --json benchmarks/results/heads-whitening.json

Components and their variances are those of the training features; test split, both protocols, every prefix. It has no
seed, so its rows are exact; some ten seconds a dataset on two cores.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from benchmarks.heads.fit import DIMS, Features, add_sources, datasets_of
from benchmarks.measured import Results, machine
from pipeline.evaluation.protocols import leave_one_out, score_embeddings


def whitened(data: Features) -> tuple[np.ndarray, np.ndarray]:
    """Training and test features as whitened principal components, float32 [n, 256]."""
    train, test = (data.splits[split][0].astype(np.float64) for split in ("train", "test"))
    mean = train.mean(axis=0)
    _, scales, components = np.linalg.svd(train - mean, full_matrices=False)
    turn = components[: DIMS[-1]].T / scales[: DIMS[-1]] * np.sqrt(len(train) - 1)
    return ((train - mean) @ turn).astype(np.float32), ((test - mean) @ turn).astype(np.float32)


def main() -> None:
    """Print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    options = parser.parse_args()
    results = Results(machine(options.device), options.json)
    for name, data in datasets_of(options).items():
        began = time.perf_counter()
        train, test = whitened(data)
        took = f"made in {time.perf_counter() - began:.1f} s with {torch.get_num_threads()} threads"
        labels, test_labels = data.splits["train"][1], data.splits["test"][1]
        found = {
            "gallery": score_embeddings(train, labels, test, test_labels, device=options.device),
            "leave-one-out": leave_one_out(test, test_labels, device=options.device),
        }
        for protocol, answers in found.items():
            table = 100 * answers.correct.mean(axis=1)
            what = f"{name}: pca, whitened, {protocol}"
            results.add(what, float(table[0, -1]), "%", took, accuracies=table.tolist())


if __name__ == "__main__":
    main()
