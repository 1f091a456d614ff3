"""Which layer and pooling of a backbone carry a hierarchy, and what each method makes of them: one table per features.

    pipeline embed clinc --backbone FILE.gguf --layers -1,-9,-17 --pooling mean
    python benchmarks/heads/methods.py --artifacts artifacts --export build/mean-1.npz
    python benchmarks/heads/layers.py --features build/mean-1.npz,build/last-1.npz --json layers.json

Rows: `raw` (the features cut short), `centred` (the mean of the training features taken off first), `pca`, `lda`, and
`v5`, `mrl` and `joint` as they come, three seeds, at 64 and 256 dims by both protocols on the test split; beside them
the mean accuracy on the validation split (training gallery, both prefixes, all levels), by which layer and pooling are
chosen.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import heads
from benchmarks.heads.fit import DATASETS, Features, datasets_of, listed, numbers
from benchmarks.measured import Results, machine
from pipeline.evaluation.protocols import leave_one_out, score_embeddings

TRAINED, SEEDS = ("v5", "mrl", "joint"), (42, 123, 456)


def embeddings(data: Features, options: argparse.Namespace) -> dict[str, list[dict[str, np.ndarray]]]:
    """Per row of the table: for each seed the vectors of each split, float32 [n, D]."""
    rows = {split: values for split, (values, _) in data.splits.items()}
    mean = rows["train"].mean(axis=0)
    found = {"raw": [rows], "centred": [{split: values - mean for split, values in rows.items()}]}
    for method in ("pca", "lda", *TRAINED):
        fitted = heads.fit_many(
            *data.splits["train"], seeds=options.seeds, method=method, validation=data.splits["val"],
            device=options.device,
        )  # fmt: skip
        found[method] = [{split: one.head.embed(values) for split, values in rows.items()} for one in fitted]
    return found


def measure(about: str, data: Features, options: argparse.Namespace, results: Results) -> None:
    """Rows of one dataset's features."""
    labels = {split: values for split, (_, values) in data.splits.items()}
    dims, began = (64, 256), time.perf_counter()
    for name, seeds in embeddings(data, options).items():
        table: dict[str, list[np.ndarray]] = {"gallery": [], "leave-one-out": [], "validation": []}
        for one in seeds:
            for what, split in (("gallery", "test"), ("validation", "val")):
                found = score_embeddings(
                    one["train"], labels["train"], one[split], labels[split], scale_dim=dims, device=options.device
                )
                table[what].append(found.outcomes.mean(axis=0))
            found = leave_one_out(one["test"], labels["test"], scale_dim=dims, device=options.device)
            table["leave-one-out"].append(found.outcomes.mean(axis=0))
        mean = {what: 100 * np.mean(values, axis=0) for what, values in table.items()}
        said = ", ".join(f"{what} {spelled(mean[what])}" for what in ("gallery", "leave-one-out"))
        figures: dict[str, Any] = {what: values.tolist() for what, values in mean.items()}
        results.add(f"{about}, {data.name}: {name}", float(mean["validation"].mean()), "%", said, **figures)
    results.add(f"{about}, {data.name}: all", time.perf_counter() - began, "s")


def spelled(table: np.ndarray) -> str:
    """Accuracies at 64 and 256 dims, of [2, L]."""
    return " | ".join("/".join(f"{value:.1f}" for value in row) for row in table)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=lambda text: [Path(name) for name in listed(text)], required=True)
    parser.add_argument("--datasets", type=listed, default=list(DATASETS))
    parser.add_argument("--rows", type=int, help="take about so many rows of each split: a smoke run")
    parser.add_argument("--seeds", type=numbers, default=list(SEEDS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results, files = Results(machine(options.device), options.json), options.features
    for file in files:
        options.features = file
        for data in datasets_of(options).values():
            measure(file.stem, data, options, results)
    of_joint = [row for row in results.rows if row["what"].endswith(": joint")]
    for name in options.datasets:
        best = max((row for row in of_joint if f" {name}:" in row["what"]), key=lambda row: row["figure"])
        results.add(f"chosen on validation for {name}: {best['what'].split(',')[0]}", best["figure"], "%")


if __name__ == "__main__":
    main()
