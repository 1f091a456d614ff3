"""The tables a person reads in the terminal, made of the same records that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from data.summary import Spread, Summary
from pipeline.embed import Embedded
from pipeline.fit import Fitted

Score = Mapping[str, Any]


def embed_lines(embedded: Embedded) -> list[str]:
    """What an embed did: texts, tokens, nodes, and where the seconds went."""
    report = embedded.report
    lines = [
        f"{embedded.dataset.id} through {embedded.backbone.name}: {report.texts:,} texts, "
        f"{report.computed:,} computed, {report.reused:,} reused, {report.seconds:.1f} s"
    ]
    if report.computed:
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.stages.items() if seconds >= 0.05)
        lines.append(
            f"  {report.tokens:,} tokens in {report.nodes:,} nodes, padding {report.padding / (report.nodes + report.padding):.1%}, "
            f"{report.computed / report.seconds:,.0f} texts/s on {report.device} in {report.dtype}"
        )
        lines.append(f"  time: {stages}")
    return lines + [f"  layer {layer.layer}: {layer.folder}" for layer in report.stores]


def fit_line(method: str, fitted: Fitted) -> str:
    """One line on what a fit did."""
    seeds = ", ".join(str(run.seed) for run in fitted.runs)
    first = fitted.runs[0].record
    if not fitted.trained:
        return f"{method}: seeds {seeds} were trained before, nothing to do"
    seconds = fitted.runs[-1].record["seconds"]
    epochs = ", ".join(str(run.record["best_epoch"]) for run in fitted.runs)
    return (
        f"{method}: {fitted.trained} of seeds {seeds} trained in {seconds:.1f} s, {first['head']} head, "
        f"{first['parameters']:,} parameters, best epoch {epochs}"
    )


def group_by_method(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Scores of the seeds of one method and head side by side, in the order met."""
    groups: dict[str, list[Score]] = {}
    heads = {score["head"] for score in scores}
    for score in scores:
        name = score["method"] if len(heads) == 1 else f"{score['method']} ({score['head']})"
        groups.setdefault(name, []).append(score)
    return groups


def score_table(scores: Sequence[Score], levels: Sequence[str]) -> Table:
    """Accuracy in percent of every method, prefix and level of one protocol.

    One seed shows the 95 % bootstrap interval over queries, several seeds mean +- SD over seeds.
    """
    first = scores[0]
    several = any(len(group) > 1 for group in group_by_method(scores).values())
    spread = "mean ± SD over seeds" if several else "[95 % interval over queries]"
    table = Table(
        title=f"{first['protocol']}, k = {first['k']}: {first['queries']:,} queries against {first['gallery']:,} "
        f"texts\naccuracy in %, {spread}",
        title_justify="left",
    )
    table.add_column("method")
    table.add_column("dims", justify="right")
    for level in levels:
        table.add_column(level, justify="right")
    table.add_column("S", justify="right")
    for name, group in group_by_method(scores).items():
        for j, prefix in enumerate(group[0]["prefixes"]):
            cells = [_cell([score["prefixes"][j]["levels"][level] for score in group]) for level in range(len(levels))]
            steer = f"{mean(score['steerability'] for score in group):+.3f}" if j == 0 and _steers(group) else ""
            table.add_row(name if j == 0 else "", str(prefix["dim"]), *cells, steer)
        table.add_section()
    return table


def _steers(group: Sequence[Score]) -> bool:
    return all(score["steerability"] is not None for score in group)


def _cell(values: Sequence[Mapping[str, Any]]) -> str:
    accuracies = [value["accuracy"] * 100 for value in values]
    if len(values) == 1:
        low, high = values[0]["ci95"]
        return f"{accuracies[0]:.1f} [{low * 100:.1f}, {high * 100:.1f}]"
    return f"{mean(accuracies):.1f} ± {stdev(accuracies):.1f}"


def dataset_lines(summary: Summary) -> list[str | Table]:
    """What a dataset is made of: rows, levels with their entropies, balance, lengths, duplicates."""
    splits = ", ".join(f"{split} {rows:,}" for split, rows in summary.splits.items())
    lines: list[str | Table] = [f"{summary.id}: {summary.rows:,} rows ({splits})"]
    if summary.out_of_scope:
        lines.append("out of scope, left out: " + ", ".join(f"{s} {n:,}" for s, n in summary.out_of_scope.items()))
    table = Table(
        "level", "classes", "children a class", "rows a class", "balance", "bits", "bits given the level above"
    )
    for level in summary.levels:
        children = _spread(level.branching) if level.branching else "-"
        bits = f"H = {level.entropy:.2f}"
        given = f"{level.conditional_entropy:.2f}"
        table.add_row(
            level.name, f"{level.classes:,}", children, _spread(level.rows), f"{level.balance:.3f}", bits, given
        )
    lines.append(table)
    for unit, spread in summary.lengths.items():
        lines.append(
            f"{unit} a text: mean {spread.mean:.1f}, median {spread.median}, 95 % {spread.p95}, max {spread.max}"
        )
    lines.append(
        f"{summary.distinct:,} distinct texts; {summary.duplicates:,} rows repeat one, {summary.in_two_splits:,} texts "
        f"stand in two splits, {summary.contradictions:,} under different labels"
    )
    return lines


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.0f}" if spread.min == spread.max else f"{spread.mean:.1f} ({spread.min}-{spread.max})"
