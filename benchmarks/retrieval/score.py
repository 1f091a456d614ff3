"""How fast prefixes are scored: all of them in one pass against the longest alone, and against what people use.

    python benchmarks/retrieval/score.py --json score-cpu.json
    python benchmarks/retrieval/score.py --device cuda --gallery 1000000 --json score-cuda.json

Vectors are drawn around class centres, float32, of CLINC's size by default (4,500 queries, 15,000 rows of 150 classes
in 10, 256 dimensions): time depends on the numbers of rows, little on what they hold. `prefixes` is all of scoring
(search, vote and count, two levels), `longest` the same with the full vector alone. `peak` is a float64 matrix product
of the same run; the share of it counts 2 x queries x gallery x dimensions and nothing else. `scikit-learn` is
`KNeighborsClassifier` (brute force, cosine) once per prefix and level, on the CPU; `plain` is what one writes in
torch: float32 cosines of a prefix, `topk`, a vote, once per prefix. Medians of `--repeats`, after one call that is not
counted.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measured import machine, timed
from pipeline.evaluation.protocols import score_embeddings

DIMS = (64, 128, 192, 256)
CLASSES, PARENTS, K = 150, 10, 5


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [n, 256] float32 around class centres, and labels [n, 2]."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, CLASSES, rows)
    centres = np.random.default_rng(0).standard_normal((CLASSES, DIMS[-1]), dtype=np.float32)
    vectors = rng.standard_normal((rows, DIMS[-1]), dtype=np.float32)
    vectors += centres[fine]
    return vectors, np.stack([fine % PARENTS, fine], axis=1)


def peak(device: str, repeats: int) -> float:
    """Operations a second of a float64 matrix product."""
    n = 8192 if device == "cuda" else 3072
    a, b = (torch.randn(n, n, dtype=torch.float64, device=device) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * n**3 / timed(product, repeats)


def plain(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray, device: str) -> list[torch.Tensor]:
    """Score each prefix apart, in float32: cosines, `topk`, most votes. Its ties fall as they may."""
    asked, rows, named = (torch.from_numpy(array).to(device) for array in (queries, gallery, labels))
    predicted = []
    for dim in DIMS:
        a, b = (torch.nn.functional.normalize(x[:, :dim]) for x in (asked, rows))
        found = torch.cat([(part @ b.T).topk(K).indices for part in a.split(4096 if len(b) < 100_000 else 256)])
        predicted.append(named[found].mode(dim=1).values)
    if device == "cuda":
        torch.cuda.synchronize()
    return predicted


def scikit_learn(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray) -> None:
    """Fit and ask a classifier for each prefix and level."""
    from sklearn.neighbors import KNeighborsClassifier

    for dim in DIMS:
        for level in labels.T:
            classifier = KNeighborsClassifier(K, algorithm="brute", metric="cosine")
            classifier.fit(gallery[:, :dim], level).predict(queries[:, :dim])


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Time everything; seconds, but for `peak` (operations a second)."""
    gallery, labels = drawn(options.gallery, seed=1)
    queries, query_labels = drawn(options.queries, seed=2)
    device, repeats = options.device, options.repeats

    def ours(dims: tuple[int, ...]) -> Callable[[], Any]:
        return lambda: (
            score_embeddings(gallery, labels, queries, query_labels, scale_dim=dims, k=K, device=device).accuracy
        )

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = {"prefixes": timed(ours(DIMS), repeats)}
    results["megabytes beside the vectors"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    results["longest"] = timed(ours(DIMS[-1:]), repeats)
    results["plain"] = timed(lambda: plain(queries, gallery, labels, device), repeats)
    if device == "cpu":
        results["scikit-learn"] = timed(lambda: scikit_learn(queries, gallery, labels), 1)
    results["peak"] = peak(device, repeats)
    return results


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--queries", type=int, default=4500)
    parser.add_argument("--gallery", type=int, default=15_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = measure(options)
    operations = 2 * options.queries * options.gallery * DIMS[-1]
    ours = results["prefixes"]
    facts = {**machine(options.device), "queries": options.queries, "gallery": options.gallery, "dims": DIMS}
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"four prefixes, two levels      {ours:8.3f} s   {operations / ours / results['peak']:.1%} of the peak")
    print(f"the longest prefix alone       {results['longest']:8.3f} s   four take {ours / results['longest']:.2f} x")
    for name in ("plain", "scikit-learn"):
        if name in results:
            print(f"{name:30} {results[name]:8.3f} s   {results[name] / ours:.1f} x ours")
    print(f"float64 matrix product         {results['peak'] / 1e12:8.3f} TFLOP/s")
    print(f"memory beside the vectors      {results['megabytes beside the vectors']:8.0f} MB, first call included")
    if options.json:
        options.json.write_text(json.dumps({**facts, **results}, indent=1))


if __name__ == "__main__":
    main()
