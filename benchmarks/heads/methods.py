"""Training methods against each other: `joint` beside v5 and mrl, what each part of v5 is good for, three levels.

    python benchmarks/heads/methods.py --artifacts artifacts --json methods.json
    python benchmarks/heads/methods.py --artifacts artifacts --export build/features.npz
    python benchmarks/heads/methods.py --features build/features.npz --device cuda --json methods.json

The artifacts folder is one where `pipeline embed` was run on both datasets. `--export` writes their features and labels
into one file, with which a machine needs torch, numpy and this repository only, no polars. `--known FILES` takes
finished measurements out of JSON files of earlier calls, here or on another machine, instead of measuring again what
has the same data, seeds and settings; so an interrupted call goes on, and parts come together. (The code is not part of
the match: after a change of `heads` or `pipeline` measure again.)

Every method is trained with every seed, preset `paper`, and asked by both protocols at every prefix and level. `v5`,
`mrl` and the ablations have their published settings; `v5-matched` and `mrl-matched` have joint's epochs, learning rate
and schedule, and `--matched-batch` anchors a step (joint's own batch of 128 pairs is 256 texts); `-wide` is the same
with preset `wide`. `three-level` is v5 on CLINC with SUPER_DOMAINS above its domains; ICD-10-CM has three levels as it
is.

Differences joint - other are paired by seed, with Student's interval; Holm's adjustment runs over all rows of one
dataset and protocol; joint-wide is compared likewise, with the others' wide heads too. "Not worse": the lower end of
the interval is at least -0.3 points at every prefix and level. "Strictly better": adjusted p < 0.05 for a gain at some
level at the shortest prefix, on each dataset.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import heads
from benchmarks.heads.fit import (
    DATASETS,
    SEEDS,
    Features,
    add_sources,
    datasets_of,
    fitted_to,
    listed,
    numbers,
)
from benchmarks.measured import machine
from pipeline.evaluation import statistics
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.protocols import leave_one_out, score_embeddings

PROTOCOLS = ("gallery", "leave-one-out")
MARGIN, LEVEL = 0.003, 0.05
SUPER = "clinc-super"
SUPER_DOMAINS = {
    "banking": "money",
    "credit_cards": "money",
    "home": "household",
    "kitchen_and_dining": "household",
    "auto_and_commute": "under way",
    "travel": "under way",
    "utility": "getting things done",
    "work": "getting things done",
    "small_talk": "conversation",
    "meta": "conversation",
}
"""Five classes of two domains each, by what a person is about: no part of CLINC, made up for this measurement."""

Record = dict[str, Any]
"""What was measured of a method on a dataset by one protocol: settings, seeds, accuracies [seeds, J, L]."""


@dataclass(frozen=True)
class Plan:
    """A method, whether trained as joint is, with which head and on which datasets."""

    name: str
    method: str
    datasets: tuple[str, ...] = DATASETS
    matched: bool = False
    head: str = "paper"

    def settings(self, batch: int) -> dict[str, Any]:
        """Spell out what `fit_many` is told beyond the method's own settings."""
        if not self.matched:
            return {}
        joint = heads.hyperparameters("joint")
        return {"batch_size": batch, **{name: joint[name] for name in ("epochs", "lr", "schedule")}}


PLANS = {
    plan.name: plan
    for plan in (
        Plan("joint", "joint"),
        Plan("v5", "v5"),
        Plan("mrl", "mrl"),
        Plan("v5-matched", "v5", matched=True),
        Plan("mrl-matched", "mrl", matched=True),
        Plan("joint-wide", "joint", head="wide"),
        Plan("v5-wide", "v5", matched=True, head="wide"),
        Plan("mrl-wide", "mrl", matched=True, head="wide"),
        Plan("inverted", "inverted", ("clinc",)),
        Plan("no-prefix", "no-prefix", ("clinc",)),
        Plan("uniform", "uniform", ("clinc",)),
        Plan("three-level", "v5", (SUPER,)),
    )
}
PUBLISHED = ("v5", "mrl", "v5-matched", "mrl-matched")
RIVALS = {"joint": PUBLISHED, "joint-wide": (*PUBLISHED, "v5-wide", "mrl-wide")}
say = partial(print, flush=True)


def with_super_domains(clinc: Features) -> Features:
    """Put SUPER_DOMAINS above the domains."""
    names = tuple(sorted(set(SUPER_DOMAINS.values())))
    above = np.array([names.index(SUPER_DOMAINS[domain]) for domain in clinc.classes[0]])
    splits = {s: (x, np.concatenate([above[y[:, :1]], y], axis=1)) for s, (x, y) in clinc.splits.items()}
    return Features(SUPER, ("super-domain", *clinc.levels), (names, *clinc.classes), splits)


def digest(features: Features) -> str:
    """Name the content of features and labels in 12 hex digits."""
    content = hashlib.blake2b(digest_size=6)
    for array in (array for arrays in features.splits.values() for array in arrays):
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def export(path: Path, datasets: dict[str, Features]) -> None:
    """Write datasets into one file: features as float16, which is what a store holds unless told otherwise."""
    arrays: dict[str, np.ndarray] = {}
    for name, features in datasets.items():
        facts = {"levels": features.levels, "classes": features.classes}
        arrays[f"{name}.facts"] = np.array(json.dumps(facts))
        for split, (rows, labels) in features.splits.items():
            arrays[f"{name}.{split}.features"] = rows.astype(np.float16)
            arrays[f"{name}.{split}.labels"] = labels.astype(np.int16)
    np.savez_compressed(path, **arrays)
    say(f"{path}: {', '.join(datasets)}, {path.stat().st_size / 2**20:.1f} MiB")


def measure(features: Features, plan: Plan, options: argparse.Namespace) -> list[Record]:
    """Train and ask the seeds of a method, or take what is known: a record a protocol."""
    settings = plan.settings(options.matched_batch)
    wanted = {
        "method": plan.name,
        "dataset": features.name,
        "digest": digest(features),
        "seeds": list(options.seeds),
        "hyperparameters": heads.hyperparameters(plan.method, **settings),
    }
    known = {r["protocol"]: r for r in options.known if all(r[name] == value for name, value in wanted.items())}
    if known.keys() == set(PROTOCOLS):
        return [known[protocol] for protocol in PROTOCOLS]
    began = time.perf_counter()
    train, labels = features.splits["train"]
    results = fitted_to(features, options.device, seeds=wanted["seeds"], method=plan.method, head=plan.head, **settings)
    about = {
        **wanted,
        "rows": features.rows,
        "levels": features.levels,
        "device": options.device,
        "fit_seconds": time.perf_counter() - began,
        "best_epochs": [result.best_epoch for result in results],
    }
    predictions = [ask(result.head, train, labels, *features.splits["test"], options.device) for result in results]
    return [
        {
            **about,
            "protocol": protocol,
            "dims": predictions[0][protocol].dims,
            "accuracy": [by_protocol[protocol].accuracy.tolist() for by_protocol in predictions],
        }
        for protocol in PROTOCOLS
    ]


def ask(
    head: heads.FractalHead,
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    where: str,
) -> dict[str, Predictions]:
    """Ask one head's test texts by both protocols."""
    head = head.to(where)
    gallery, queries = head.embed(train), head.embed(test)
    return {
        "gallery": score_embeddings(gallery, labels, queries, test_labels, scale_dim=head.dims, device=where),
        "leave-one-out": leave_one_out(queries, test_labels, scale_dim=head.dims, device=where),
    }


def accuracies(record: Record) -> np.ndarray:
    """Accuracies [seeds, J, L] of a record."""
    return np.array(record["accuracy"])


def figures(record: Record) -> dict[str, np.ndarray]:
    """Steerability with its terms, and with three levels each one's gain from the shortest prefix to the longest."""
    values = accuracies(record)
    gains = values[:, -1] - values[:, 0]
    found = {"steerability": gains[:, -1] - gains[:, 0], "coarse gain": -gains[:, 0], "fine gain": gains[:, -1]}
    levels = record["levels"]
    if len(levels) > 2:
        found |= {f"gain of {level}": gains[:, i] for i, level in enumerate(levels)}
        found |= {
            f"gain of {levels[i]} - {levels[i - 1]}": gains[:, i] - gains[:, i - 1] for i in range(1, len(levels))
        }
    return found


@dataclass(frozen=True)
class Difference:
    """subject - other at one prefix and level over seeds; shares, not points."""

    dataset: str
    protocol: str
    scorable: str
    other: str
    dim: int
    level: str
    n: int
    mean: float
    ci95: tuple[float, float] | None
    p: float | None
    p_holm: float | None


def differences(records: Sequence[Record], scorable: str) -> list[Difference]:
    """Compare joint or its wide head with each rival there is, on one dataset by one protocol."""
    by_method = {record["method"]: record for record in records}
    joint = by_method[scorable]
    rows, tests = [], []
    for other in (name for name in RIVALS[scorable] if name in by_method):
        shares = accuracies(joint) - accuracies(by_method[other])
        for j, level in np.ndindex(shares.shape[1:]):
            rows.append((other, joint["dims"][j], joint["levels"][level]))
            tests.append(statistics.paired_test(shares[:, j, level]))
    adjusted = statistics.holm([test.p for test in tests])
    return [
        Difference(joint["dataset"], joint["protocol"], scorable, *row, test.n, test.mean, test.interval, test.p, p)
        for row, test, p in zip(rows, tests, adjusted, strict=True)
    ]


def verdict(rows: Sequence[Difference]) -> dict[str, Any]:
    """Judge against one rival: not worse anywhere, better at the shortest prefix; None where n is too small."""
    first = rows[0]
    where = {name: getattr(first, name) for name in ("dataset", "protocol", "subject", "other")}
    lows = [(row.ci95[0], row) for row in rows if row.ci95 is not None]
    if len(lows) < len(rows):
        return {**where, "not_worse": None, "better": None, "worse_at": [], "gains": []}
    shortest = min(row.dim for row in rows)
    gains = [
        row for row in rows if row.dim == shortest and row.mean > 0 and row.p_holm is not None and row.p_holm < LEVEL
    ]
    return {
        **where,
        "not_worse": all(low >= -MARGIN for low, _ in lows),
        "better": bool(gains),
        "worse_at": [f"{row.level} at {row.dim} ({low * 100:+.2f})" for low, row in lows if low < -MARGIN],
        "gains": [f"{row.level} {row.mean * 100:+.2f}" for row in gains],
    }


def spelled(values: np.ndarray) -> str:
    """Spell out a mean over seeds with its interval, in points."""
    test = statistics.paired_test(values)
    ends = "" if test.interval is None else " [{:+.2f}, {:+.2f}]".format(*(end * 100 for end in test.interval))
    return f"{test.mean * 100:+.2f} points{ends}, n={test.n}"


@dataclass
class Report:
    """Everything measured so far; printed as it comes, written after each method."""

    path: Path | None
    about: dict[str, Any]
    runs: list[Record] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def write(self) -> None:
        """Write the JSON, whole or not at all."""
        if self.path:
            unfinished = self.path.with_suffix(".partial")
            rows = [asdict(row) for row in self.differences]
            unfinished.write_text(json.dumps({"about": self.about, "runs": self.runs, "differences": rows}, indent=1))
            unfinished.replace(self.path)

    def add(self, record: Record) -> None:
        """Show a method's accuracies, mean and SD over seeds at each prefix and level, and what follows from them."""
        values = accuracies(record) * 100
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)
        head = f"{record['dataset']:12} {record['protocol']:14} {record['method']:12}"
        say(f"\n{head} {record['device']}, {record['hyperparameters']}, {record['fit_seconds']:.1f} s")
        for j, dim in enumerate(record["dims"]):
            cells = zip(record["levels"], values.mean(axis=0)[j], spread[j], strict=True)
            say(f"{head} {dim:4} dims  " + "  ".join(f"{level} {mean:6.2f} ({sd:.2f})" for level, mean, sd in cells))
        for what, column in figures(record).items():
            say(f"{head} {what}: {spelled(column)}")
        self.runs.append(record)
        self.write()

    def compare(self, dataset: str, scorable: str) -> None:
        """Show joint or its wide head against each rival on one dataset."""
        for protocol in PROTOCOLS:
            found = [r for r in self.runs if (r["dataset"], r["protocol"]) == (dataset, protocol)]
            rows = differences(found, scorable)
            self.differences += rows
            say(f"\n{dataset}, {protocol}, {scorable} - other in points, Holm over {len(rows)} rows")
            for row in rows:
                ends = "" if row.ci95 is None else "[{:+.2f}, {:+.2f}]".format(*(end * 100 for end in row.ci95))
                p = "-" if row.p_holm is None else f"{row.p_holm:.2g}"
                say(f"  {row.other:12} {row.level:8} {row.dim:4} dims {row.mean * 100:+6.2f} {ends}, n={row.n}, p={p}")
            for other in dict.fromkeys(row.other for row in rows):
                say("  " + json.dumps(verdict([row for row in rows if row.other == other])))
        self.write()


def run(options: argparse.Namespace) -> None:
    """Measure dataset by dataset, method by method."""
    datasets = datasets_of(options)
    report = Report(options.json, machine(options.device))
    say(" | ".join(f"{key} {value}" for key, value in report.about.items()))
    if "clinc" in datasets:
        datasets[SUPER] = with_super_domains(datasets["clinc"])
    for dataset, features in datasets.items():
        plans = [PLANS[name] for name in options.methods if dataset in PLANS[name].datasets]
        for plan in plans:
            for record in measure(features, plan, options):
                report.add(record)
        names = {plan.name for plan in plans}
        for scorable, rivals in RIVALS.items():
            if scorable in names and names & set(rivals):
                report.compare(dataset, scorable)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    parser.add_argument("--seeds", type=numbers, default=list(SEEDS))
    parser.add_argument("--methods", type=listed, default=list(PLANS), help=",".join(PLANS))
    parser.add_argument("--matched-batch", type=int, default=256, help="anchors a step of the -matched methods")
    parser.add_argument("--known", type=known, default=[], help="JSON files of earlier calls, by commas")
    parser.add_argument("--export", type=Path, help="write features and labels of the datasets there, and stop")
    options = parser.parse_args()
    unknown = [name for name in options.methods if name not in PLANS]
    if unknown:
        parser.error(f"unknown methods {', '.join(unknown)}: use {','.join(PLANS)}")
    if options.export:
        export(options.export, datasets_of(options))
    else:
        run(options)


def known(paths: str) -> list[Record]:
    """Read the records of earlier calls."""
    return [record for path in listed(paths) for record in json.loads(Path(path).read_text())["runs"]]


if __name__ == "__main__":
    main()
