"""One level alone: CLINC150's intents without their domains, and a coarse level derived from features.

    PIPELINE_DATA=DATA python benchmarks/data/one_level.py --artifacts artifacts

Needs `pipeline embed clinc --backbone minilm` in the artifacts folder. Says the accuracy of intents at 64 and 256
dimensions of `joint`, fitted on both levels and on intents alone (test split, training gallery, three seeds), and how
far clusters of the intents' centroids agree with the ten real domains: the adjusted Rand index (Hubert and Arabie,
1985) of `--make-coarse` and of two other ways to cluster.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.cluster.vq import kmeans2

import heads
from pipeline.evaluation.protocols import score_embeddings
from pipeline.stages.coarse_level import class_centroids, clusters
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures, labelled_features

SEEDS = (42, 123, 456)


def adjusted_rand(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Agreement of two clusterings: 1 for the same, 0 on average for chance."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)

    def pairs(counts: NDArray[np.float64]) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, first, second = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected = first * second / (len(one) * (len(one) - 1) / 2)
    return (both - expected) / ((first + second) / 2 - expected)


def agreement(features: LabelledFeatures) -> None:
    """Print the adjusted Rand index of ten clusters of intents against the domains."""
    domains = features.dataset.hierarchy.parents[0]
    _, centroids = class_centroids(*features.split("train"))
    units = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    print(f"--make-coarse 10 (Ward): adjusted Rand {adjusted_rand(clusters(centroids, 10), domains):.3f}")
    average = cut_tree(linkage(units, "average"), 10).ravel()
    print(f"average linkage: {adjusted_rand(average, domains):.3f}")
    starts = [kmeans2(units, 10, minit="++", rng=seed) for seed in range(20)]
    best = min(starts, key=lambda found: float(((units - found[0][found[1]]) ** 2).sum()))
    print(f"k-means, best of 20 starts: {adjusted_rand(best[1].astype(np.int64), domains):.3f}")


def accuracies(features: LabelledFeatures, first: int) -> None:
    """Print accuracy in % of intents at 64 and 256 dimensions, of `joint` fitted on the levels from `first` on."""
    (train, labels), (held, held_labels), (test, test_labels) = map(features.split, ("train", "val", "test"))
    held_out = (held, held_labels[:, first:])
    found = []
    for result in heads.fit_many(train, labels[:, first:], method="joint", seeds=SEEDS, validation=held_out):
        head = result.head
        answers = score_embeddings(head.embed(train), labels[:, first:], head.embed(test), test_labels[:, first:])
        found.append(100 * answers.accuracy[[0, -1], -1])
    mean, each = np.mean(found, axis=0), "; ".join(f"{a:.2f} / {b:.2f}" for a, b in found)
    print(f"joint on {2 - first} level(s), intents at 64 / 256: {mean[0]:.2f} / {mean[1]:.2f} (seeds: {each})")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    features = labelled_features(Artifacts(parser.parse_args().artifacts), dataset="clinc", backbone="minilm")
    agreement(features)
    for first in (0, 1):
        accuracies(features, first)


if __name__ == "__main__":
    main()
