"""What the figures were made of and with: claims, settings, runs, versions, and the commands that make them again."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from markupsafe import Markup

import heads
from cache.backbone import GIVEN
from pipeline.claims.format import claim_lines, elsewhere_lines, measured_lines
from pipeline.claims.verdicts import NOT_MEASURED
from pipeline.report.collect import ReportData
from pipeline.report.html import Section, bullets, escaped, numbers, table, tag, typed
from pipeline.workspace.run_names import names
from pipeline.workspace.runs import Run

_PACKAGES = ("semantic-zoom", "torch", "transformers", "numpy", "polars", "h5py", "altair", "vl-convert-python")
_OPTIONS = {"epochs": "--epochs", "batch_size": "--batch-size", "lr": "--lr", "schedule": "--schedule"}


def claims(report_data: ReportData) -> Section | None:
    """The published claims and what became of them, where `reproduce` was run."""
    title = "The published claims"
    if not report_data.claims:
        return None
    seeds = max(claim.seeds for claim in report_data.claims)
    words = (
        "Published for CLINC with other backbones. A claim holds if its test is passed with 95 % confidence: those on "
        f"accuracy under the published protocol, leave-one-out, with n = {seeds} seed{'' if seeds == 1 else 's'} here. "
        "Shares are in per cent, differences between them in points."
    )
    rows = [
        (claim.id, claim.claim, _stacked(measured_lines(claim)), _stacked(elsewhere_lines(claim)), claim.verdict)
        for claim in report_data.claims
    ]
    head = ("id", "claim", "measured [95 %]", "with the training gallery [95 %]", "verdict")
    notes = claim_lines(report_data.claims)
    if any(claim.verdict == NOT_MEASURED for claim in report_data.claims):
        notes.append(f"Claims on search take minutes to measure: pipeline reproduce {report_data.options} does it.")
    body = tag(
        "div",
        tag("p", words),
        table("Published claims beside what is measured here", head, rows, text=range(5), stacks=True),
        bullets(notes) if notes else "",
    )
    return Section("claims", title, body)


def settings(report_data: ReportData) -> Section:
    """Settings, runs, versions, seeds, and the commands that made the page."""
    features, dataset = report_data.features, report_data.dataset
    splits = ", ".join(f"{name} {len(dataset.split_rows(name)):,}" for name in ("train", "val", "test"))
    facts = (
        ("dataset", f"{dataset.id}: {len(dataset):,} rows ({splits})"),
        ("classes", report_data.sizes),
        *(("level", note) for note in dataset.warnings if " is derived: " in note),
        ("backbone", f"{features.backbone}, layer {features.layer}"),
        ("features", f"fingerprint {features.fingerprint}"),
        ("seeds", ", ".join(map(str, report_data.seeds))),
    )
    runs = [
        (
            run.id, run.method, run.record["head"], run.seed,
            *(run.record["hyperparameters"].get(name, "-") for name in _OPTIONS), run.record["best_epoch"],
            f"{run.record['parameters']:,}", f"{run.record['seconds']:.1f}",
        )
        for run in report_data.runs
    ]  # fmt: skip
    head = ("run", "method", "head", "seed", "epochs", "batch", "learning rate", "schedule", "best epoch",
            "parameters", "seconds")  # fmt: skip
    body = tag(
        "div",
        table("What was measured", ("what", "which"), facts, text=range(2)),
        tag("h3", "The commands"),
        typed(commands(report_data)),
        numbers(
            table("Runs", head, runs, text=range(3)),
            table("Versions", ("package", "version"), list(_versions()), text=range(2)),
            summary="Runs and versions",
        ),
    )
    return Section("settings", "Settings, versions, commands", body)


def commands(report_data: ReportData) -> list[str]:
    """What to type to make the page again: embed, a fit for each group of runs, the report."""
    features, source = report_data.features, report_data.source
    last, description = features.other_layer is None, features.store.description
    options = ["--dtype", str(description["compute_dtype"])]
    if description["store_dtype"] != ("float16" if last else "float32"):
        options += ["--store-dtype", str(description["store_dtype"])]
    options += [] if last else ["--layers", str(features.layer)]
    options += source.options
    layer = [] if last else ["--layer", str(features.layer)]
    read = ["--backbone", features.source.source, *options]
    if features.source.source.startswith(GIVEN):
        read = ["--embeddings", "FILE", "--name", features.source.name, *source.options]
    return [
        shlex.join(["pipeline", "embed", source.source, *source.description.files, *read]),
        *(shlex.join([*_fit_command(group), *layer]) for group in _groups(report_data)),
        shlex.join(["pipeline", "report", *report_data.options.split()]),
    ]


def _groups(report_data: ReportData) -> list[list[Run]]:
    """Runs that differ in their seed alone."""
    groups: dict[str, list[Run]] = {}
    for name, run in zip(names([run.record for run in report_data.runs]), report_data.runs, strict=True):
        groups.setdefault(name, []).append(run)
    return list(groups.values())


def _fit_command(group: list[Run]) -> list[str]:
    record = group[0].record
    words = ["pipeline", "fit-head", "--method", group[0].method]
    if group[0].closed_form:  # chosen, or all there is: neither a seed nor a setting changes it
        return words
    words += ["--seeds", ",".join(str(run.seed) for run in group)]
    usual, settings = heads.hyperparameters(group[0].method), dict(record["hyperparameters"])
    if settings.get("chosen"):  # by the data, as without either option
        settings.pop("epochs")
    elif heads.is_chosen(group[0].method, None, None) or record["head"] != heads.head_of(group[0].method):
        words += ["--head", str(record["head"])]
    for name, option in _OPTIONS.items():
        if settings.get(name) not in (None, usual.get(name)):
            words += [option, str(settings[name])]
    return words


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _stacked(lines: Sequence[str]) -> Markup:
    """One line each."""
    return escaped([tag("span", line, class_="line") for line in lines] or "-")
