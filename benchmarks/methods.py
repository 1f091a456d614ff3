"""Training methods against each other: `joint` beside v5 and mrl, what each part of v5 is good for, three levels.

    python benchmarks/methods.py --artifacts artifacts --json methods.json --answers methods-answers
    python benchmarks/methods.py --artifacts artifacts --export build/features.npz
    python benchmarks/methods.py --features build/features.npz --device cuda --json methods.json --answers OUT/answers

The artifacts folder is one where `pipeline embed` was run on both datasets. `--export` writes their features and labels
into one file, with which a machine needs torch, numpy and this repository only, no polars. `--answers` keeps every
answer, a file a dataset and method: a second call reads what a first one finished, and compares all. (It knows data,
seeds and settings, not the code: after a change of `heads` or `pipeline` give it another folder.)

Every method is trained with every seed, preset `paper`, and asked by both protocols at every prefix and level. `v5`,
`mrl` and the ablations have their published settings; `v5-matched` and `mrl-matched` have joint's epochs, learning rate
and schedule, and `--matched-batch` anchors a step (joint's own batch of 128 pairs is 256 texts). `three-level` is v5 on
CLINC with SUPER_DOMAINS above its domains; ICD-10-CM has three levels as it is.

Differences joint - other are paired by seed, with Student's interval; Holm's adjustment runs over all rows of one
dataset and protocol. "Not worse": the interval's lower end is at least -0.3 points at every prefix and level. "Strictly
better": adjusted p < 0.05 for a gain at some level at the shortest prefix, on each dataset.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fit import DATASETS, Features, add_sources, datasets_of, fitted_to, listed, machine

import heads
from pipeline import statistics
from pipeline.answers import STEERABILITY, Answers
from pipeline.comparison import LEVEL, Comparison, Entry, compare
from pipeline.protocols import leave_one_out, score_embeddings

SEEDS = (42, 123, 456, 789, 1011)
PROTOCOLS = ("gallery", "leave-one-out")
MARGIN = 0.003
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


@dataclass(frozen=True)
class Plan:
    """A method, whether trained as joint is, and on which datasets."""

    name: str
    method: str
    datasets: tuple[str, ...] = DATASETS
    matched: bool = False

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
        Plan("inverted", "inverted", ("clinc",)),
        Plan("no-prefix", "no-prefix", ("clinc",)),
        Plan("uniform", "uniform", ("clinc",)),
        Plan("three-level", "v5", (SUPER,)),
    )
}
say = partial(print, flush=True)
RIVALS = ("v5", "mrl", "v5-matched", "mrl-matched")


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
    print(f"{path}: {', '.join(datasets)}, {path.stat().st_size / 2**20:.1f} MiB")


@dataclass(frozen=True)
class Measured:
    """A method's answers on a dataset, by protocol, one a seed; `about` says how its heads came about."""

    features: Features
    plan: Plan
    about: dict[str, Any]
    answers: dict[str, list[Answers]]

    def accuracy(self, protocol: str) -> np.ndarray:
        """Accuracies [seeds, J, L]."""
        return np.stack([answers.accuracy for answers in self.answers[protocol]])

    def entries(self, protocol: str) -> Iterator[Entry]:
        """Name the runs for a comparison."""
        for seed, answers in zip(self.about["seeds"], self.answers[protocol], strict=True):
            yield Entry(self.plan.name, seed, answers)

    def record(self, protocol: str) -> dict[str, Any]:
        """Spell out one protocol's figures as JSON has them."""
        terms = [answers.steerability for answers in self.answers[protocol]]
        steering = [[s.total, s.coarse_gain, s.fine_gain] for s in terms if s is not None]
        return {
            "method": self.plan.name,
            "protocol": protocol,
            **self.about,
            "levels": self.features.levels,
            "dims": self.answers[protocol][0].dims,
            "accuracy": self.accuracy(protocol).tolist(),
            "steerability": dict(zip(STEERABILITY, map(list, zip(*steering, strict=True)), strict=True)),
        }


def measure(features: Features, plan: Plan, options: argparse.Namespace) -> Measured:
    """Train and ask the seeds of a method, or read the answers that a former call kept."""
    settings = plan.settings(options.matched_batch)
    about = {
        "dataset": features.name,
        "rows": features.rows,
        "digest": digest(features),
        "seeds": list(options.seeds),
        "hyperparameters": heads.hyperparameters(plan.method, **settings),
    }
    kept = options.answers and options.answers / f"{features.name}-{plan.name}.npz"
    if kept and kept.is_file():
        measured = read_answers(kept, features, plan)
        if all(measured.about[name] == value for name, value in about.items()):
            return measured
    measured = train_and_ask(features, plan, settings, about, options.device)
    if kept:
        write_answers(kept, measured)
    return measured


def train_and_ask(
    features: Features, plan: Plan, settings: dict[str, Any], about: dict[str, Any], device: str
) -> Measured:
    """Train all seeds at once, then ask each by both protocols."""
    train, labels = features.splits["train"]
    test, test_labels = features.splits["test"]
    began = time.perf_counter()
    results = fitted_to(features, device, seeds=about["seeds"], method=plan.method, **settings)
    fitted = time.perf_counter()
    answers: dict[str, list[Answers]] = {protocol: [] for protocol in PROTOCOLS}
    for result in results:
        head = result.head.to(device)
        gallery, queries = head.embed(train), head.embed(test)
        scales = {"scale_dim": head.dims, "device": device}
        answers["gallery"].append(score_embeddings(gallery, labels, queries, test_labels, **scales))
        answers["leave-one-out"].append(leave_one_out(queries, test_labels, **scales))
    seconds = {"fit_seconds": fitted - began, "score_seconds": time.perf_counter() - fitted}
    about = {**about, **seconds, "device": device, "best_epochs": [result.best_epoch for result in results]}
    return Measured(features, plan, about, answers)


def write_answers(path: Path, measured: Measured) -> None:
    """Keep a method's answers in one file, which exists only once it is whole."""
    arrays: dict[str, np.ndarray] = {"about": np.array(json.dumps(measured.about))}
    for protocol, runs in measured.answers.items():
        for i, answers in enumerate(runs):
            arrays.update({f"{protocol}.{i}.{name}": array for name, array in answers.to_arrays().items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial.npz")
    np.savez_compressed(unfinished, **arrays)
    unfinished.replace(path)


def read_answers(path: Path, features: Features, plan: Plan) -> Measured:
    """Read what `write_answers` wrote."""
    with np.load(path) as arrays:
        about = json.loads(str(arrays["about"]))
        parts: dict[str, dict[str, np.ndarray]] = {}
        for key in (key for key in arrays.files if key != "about"):
            run, _, name = key.rpartition(".")
            parts.setdefault(run, {})[name] = arrays[key]
    runs = range(len(about["seeds"]))
    answers = {p: [Answers.from_arrays(parts[f"{p}.{i}"]) for i in runs] for p in PROTOCOLS}
    return Measured(features, plan, about, answers)


def against_joint(measured: dict[str, Measured], protocol: str) -> list[Comparison]:
    """Compare joint with each rival there is; p adjusted over all rows together."""
    rows: list[Comparison] = []
    for name in RIVALS:
        if name in measured:
            rows += compare([*measured["joint"].entries(protocol), *measured[name].entries(protocol)])
    adjusted = statistics.holm([row.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]


def verdict(rows: Sequence[Comparison], levels: Sequence[str]) -> dict[str, Any]:
    """Judge joint against one rival on one dataset by one protocol: not worse anywhere, better at the shortest prefix.

    Both are None where there are too few seeds for an interval.
    """
    cells = [row for row in rows if row.metric == "accuracy"]
    lows = [(row.ci95[0], row) for row in cells if row.ci95 is not None]
    if len(lows) < len(cells):
        return {"not_worse": None, "better": None, "worst": None, "gains": []}
    low, worst = min(lows, key=lambda pair: pair[0])
    gains = [
        f"{levels[row.level or 0]} {row.mean_difference * 100:+.2f} (p={row.p_holm:.2g})"
        for row in cells
        if row.prefix == 1 and row.mean_difference > 0 and row.p_holm is not None and row.p_holm < LEVEL
    ]
    where = f"{levels[worst.level or 0]} at {worst.dim} dims, lower end {low * 100:+.2f} points"
    return {"not_worse": bool(low >= -MARGIN), "better": bool(gains), "worst": where, "gains": gains}


def interval_of(values: np.ndarray) -> dict[str, Any]:
    """Student's interval of a mean over seeds, p against zero, and the sign where it is told from zero."""
    test = statistics.paired_test(values)
    sign = None
    if test.interval is not None:
        low, high = test.interval
        sign = "above zero" if low > 0 else "below zero" if high < 0 else "not told from zero"
    return {"n": test.n, "mean": test.mean, "sd": test.sd, "ci95": test.interval, "p": test.p, "sign": sign}


def spelled(figure: dict[str, Any]) -> str:
    """Spell out an interval of shares in points."""
    ends = "" if figure["ci95"] is None else " [{:+.2f}, {:+.2f}]".format(*(end * 100 for end in figure["ci95"]))
    return f"{figure['mean'] * 100:+.2f} points{ends}, n={figure['n']} {figure['sign'] or ''}"


@dataclass
class Report:
    """Everything measured so far; printed as it comes, written after each method."""

    path: Path | None
    about: dict[str, Any]
    runs: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    intervals: list[dict[str, Any]] = field(default_factory=list)

    def write(self) -> None:
        """Write the JSON, whole or not at all."""
        if self.path:
            unfinished = self.path.with_suffix(".partial")
            unfinished.write_text(json.dumps({k: v for k, v in vars(self).items() if k != "path"}, indent=1))
            unfinished.replace(self.path)

    def add_run(self, measured: Measured) -> None:
        """Show a method's accuracies: mean and SD over seeds at each prefix and level."""
        name, chosen = measured.plan.name, measured.about["hyperparameters"]
        schedule = ", ".join(f"{key} {chosen[key]}" for key in ("batch_size", "epochs", "lr", "schedule"))
        dataset = measured.features.name
        seconds, seeds = measured.about["fit_seconds"], len(measured.about["seeds"])
        say(f"\n{dataset}, {name}: {schedule}; fit {seconds:.1f} s, n={seeds}")
        for protocol in PROTOCOLS:
            values = measured.accuracy(protocol) * 100
            spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)
            for j, dim in enumerate(measured.answers[protocol][0].dims):
                cells = zip(measured.features.levels, values.mean(axis=0)[j], spread[j], strict=True)
                shown = "  ".join(f"{level} {mean:6.2f} ({sd:.2f})" for level, mean, sd in cells)
                say(f"  {dataset:12} {protocol:14} {name:12} {dim:4} dims  {shown}")
            self.runs.append(measured.record(protocol))
            self._add_intervals(measured, protocol)
        self.write()

    def _add_intervals(self, measured: Measured, protocol: str) -> None:
        """Show S with its terms; with three levels, what each level gains from the shortest prefix to the longest."""
        values = measured.accuracy(protocol)
        record = measured.record(protocol)["steerability"]
        figures = {name: np.array(record[name]) for name in STEERABILITY}
        levels = measured.features.levels
        if len(levels) > 2:
            gains = values[:, -1] - values[:, 0]
            figures |= {f"gain of {level}": gains[:, i] for i, level in enumerate(levels)}
            for i in range(1, len(levels)):
                figures[f"gain of {levels[i]} - {levels[i - 1]}"] = gains[:, i] - gains[:, i - 1]
        for what, column in figures.items():
            figure = interval_of(column)
            dataset, name = measured.features.name, measured.plan.name
            self.intervals.append({"dataset": dataset, "protocol": protocol, "method": name, "what": what, **figure})
            say(f"  {dataset:12} {protocol:14} {name:12} {what.replace('_', ' ')}: {spelled(figure)}")

    def add_comparisons(self, dataset: str, measured: dict[str, Measured]) -> None:
        """Show joint against each rival on one dataset."""
        levels = measured["joint"].features.levels
        for protocol in PROTOCOLS:
            rows = against_joint(measured, protocol)
            say(f"\n{dataset}, {protocol}, joint - other, Holm over {len(rows)} rows")
            for row in rows:
                say(f"  {row.sentence(levels)}")
                self.comparisons.append({"dataset": dataset, "protocol": protocol, **asdict(row)})
            for name in dict.fromkeys(row.b for row in rows):
                found = verdict([row for row in rows if row.b == name], levels)
                self.verdicts.append({"dataset": dataset, "protocol": protocol, "other": name, **found})
        self.write()

    def show_verdicts(self) -> None:
        """Show what holds on each dataset, then on all of them."""
        words = {None: "undecided (too few seeds)", True: "yes", False: "NO"}
        say("\nverdicts: joint against")
        for v in self.verdicts:
            place = f"{v['other']:12} {v['dataset']:9} {v['protocol']:14}"
            gains = "; ".join(v["gains"]) or "-"
            say(f"  {place} not worse: {words[v['not_worse']]} ({v['worst']}); better at the shortest: {gains}")
        for protocol in PROTOCOLS:
            for name in dict.fromkeys(v["other"] for v in self.verdicts):
                found = [v for v in self.verdicts if (v["protocol"], v["other"]) == (protocol, name)]
                datasets = ", ".join(v["dataset"] for v in found)
                known = [[v[key] for v in found] for key in ("not_worse", "better")]
                worse, better = (None if None in column else all(column) for column in known)
                head = f"  {name:12} {datasets}, {protocol}:"
                say(f"{head} not worse: {words[worse]}; strictly better on each: {words[better]}")


def run(options: argparse.Namespace) -> None:
    """Measure dataset by dataset, method by method."""
    datasets = datasets_of(options)
    report = Report(options.json, machine(options.device))
    say(" | ".join(f"{key} {value}" for key, value in report.about.items()))
    if "clinc" in datasets:
        datasets[SUPER] = with_super_domains(datasets["clinc"])
    for dataset, features in datasets.items():
        plans = [PLANS[name] for name in options.methods if dataset in PLANS[name].datasets]
        measured = {}
        for plan in plans:
            measured[plan.name] = measure(features, plan, options)
            report.add_run(measured[plan.name])
        if "joint" in measured and any(name in measured for name in RIVALS):
            report.add_comparisons(dataset, measured)
    report.show_verdicts()
    report.write()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in listed(text)], default=list(SEEDS))
    parser.add_argument("--methods", type=listed, default=list(PLANS), help=",".join(PLANS))
    parser.add_argument("--matched-batch", type=int, default=256, help="anchors a step of the -matched methods")
    parser.add_argument("--answers", type=Path, help="folder that keeps every answer, to go on from")
    parser.add_argument("--export", type=Path, help="write features and labels of the datasets there, and stop")
    options = parser.parse_args()
    unknown = [name for name in options.methods if name not in PLANS]
    if unknown:
        parser.error(f"unknown methods {', '.join(unknown)}: use {','.join(PLANS)}")
    if options.export:
        export(options.export, datasets_of(options))
    else:
        run(options)


if __name__ == "__main__":
    main()
