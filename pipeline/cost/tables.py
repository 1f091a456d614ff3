"""The cost tables a person reads, made of the records that `--json` prints. Every figure carries its unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

Record = Mapping[str, Any]
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def quantity(value: float, unit: str) -> str:
    """Three digits and a decimal prefix: `360 GFLOP`, `1.36 MB`."""
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s), (1.0, ""))
    scaled = value / scale
    return f"{scaled:,.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {prefix}{unit}".replace(".00 ", " ")


def flop(value: float) -> str:
    """A count of operations."""
    return quantity(value, "FLOP")


def seconds(value: float | None) -> str:
    """A duration; "-" where nothing was measured."""
    if value is None:
        return "-"
    if value >= 120:
        return f"{value / 60:,.0f} min" if value < 7200 else f"{value / 3600:,.1f} h"
    return quantity(value, "s") if value >= 1 else f"{value * 1e3:.3g} ms"


def _columns(title: str, first: str, records: Sequence[Record]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for record in records:
        table.add_column(record["method"], justify="right")
    return table


def _row(table: Table, name: str, records: Sequence[Record], cell: Callable[[Record], str]) -> None:
    table.add_row(name, *(cell(record) for record in records))


def step_table(trainings: Sequence[Record]) -> Table:
    """One training step of each method: with the backbone in the loop above, what the cache leaves below."""
    table = _columns("one training step, counted", "FLOP per step", trainings)
    for name, cell in (
        ("anchors", lambda r: f"{r['batch']:,}"),
        ("backbone passes in the loop", lambda r: f"{r['passes']:,}"),
        ("  of texts of 128 tokens", lambda r: flop(r["published_backbone"])),
        ("  of the dataset's lengths", lambda r: flop(r["loop_backbone"])),
        ("  padded to the longest", lambda r: flop(r["padded_backbone"])),
    ):
        _row(table, name, trainings, cell)
    table.add_section()
    for name, cell in (
        ("rows through the head", lambda r: f"{r['step']['rows']:,}"),
        ("  forward", lambda r: flop(r["step"]["head_forward"])),
        ("  backward", lambda r: flop(r["step"]["head_backward"])),
        ("loss terms", lambda r: f"{r['step']['terms']}"),
        ("  cosines", lambda r: flop(r["step"]["losses"]["contrast"] + r["step"]["losses"]["margin"])),
        ("  classifiers", lambda r: flop(r["step"]["losses"]["classification"])),
        ("  their gradients", lambda r: flop(r["step"]["losses"]["backward"])),
        ("clipping and AdamW", lambda r: flop(r["step"]["optimiser"])),
        ("with the cache, in all", lambda r: flop(r["step"]["total"])),
    ):
        _row(table, name, trainings, cell)
    if any(r["seconds"]["step"] is not None for r in trainings):
        _row(table, "measured", trainings, lambda r: seconds(r["seconds"]["step"]))
    return table


def fit_table(trainings: Sequence[Record]) -> Table:
    """A whole fit: backbone passes, operations, seconds, with and without the cache, and what a further fit costs."""
    table = _columns("one fit", "", trainings)
    _row(table, "epochs x steps", trainings, lambda r: f"{r['epochs']} x {r['steps'] // r['epochs']:,}")
    for key, title in (
        ("loop", "backbone in the loop"),
        ("cached", "cached, first fit"),
        ("next_fit", "every further fit"),
    ):
        table.add_section()
        _row(table, f"{title}: passes", trainings, lambda r, key=key: f"{r[key]['passes']:,}")  # type: ignore[misc]
        _row(table, "  operations", trainings, lambda r, key=key: flop(r[key]["total"]))  # type: ignore[misc]
        _row(table, "  seconds", trainings, lambda r, key=key: seconds(r["seconds"][key]))  # type: ignore[misc]
    table.add_section()
    _row(table, "loop / further fit", trainings, lambda r: f"{r['loop']['total'] / r['next_fit']['total']:,.0f} x")
    _row(table, "loop / first fit", trainings, lambda r: f"{r['loop']['total'] / r['cached']['total']:,.0f} x")
    table.add_section()
    for key, title in (
        ("backbone", "memory: backbone, bfloat16"),
        ("features", "  features instead"),
        ("head", "  head, gradients, AdamW"),
    ):
        _row(table, title, trainings, lambda r, key=key: quantity(r["bytes"][key], "B"))  # type: ignore[misc]
    return table


def encoding_table(encodings: Sequence[Record], speed: Record | None) -> Table:
    """One text through backbone and head, by length."""
    table = Table(title="encoding one text, the same for every method", title_justify="left")
    for column in ("text", "tokens", "backbone", "attention", "no products", "head"):
        table.add_column(column, justify="left" if column == "text" else "right")
    for row in encodings:
        table.add_row(
            row["text"], f"{row['tokens']:,}", flop(row["backbone"]), f"{row['attention_share']:.2%}",
            f"+{row['other'] / row['backbone']:.1%}", flop(row["head"]),
        )  # fmt: skip
    if speed is not None:
        table.caption = (
            f"measured: {seconds(speed['seconds_per_text'])} per text over {speed['texts']:,} of the dataset's, "
            f"{speed['device']}, {speed['dtype']}"
        )
        table.caption_justify = "left"
    return table


def search_table(searches: Sequence[Record], storage: Record) -> Table:
    """One query and one document at each prefix."""
    table = Table(title="exact search of one query, float32; storage of one document", title_justify="left")
    for column in ("documents", "dims", "FLOP", "read", "measured", "float32", "float16", "int8"):
        table.add_column(column, justify="right")
    sizes = {row["dim"]: row for row in storage["embedding"]}
    for row in searches:
        size = sizes[row["dim"]]
        table.add_row(
            f"{row['documents']:,}", str(row["dim"]), quantity(row["flops"], ""), quantity(row["bytes_read"], "B"),
            seconds(row["seconds"]), f"{size['float32']:,}", f"{size['float16']:,}", f"{size['int8']:,}",
        )  # fmt: skip
    return table


def claims_table(claims: Sequence[Record]) -> Table:
    """The published figures beside the counts for the published setting."""
    table = Table(
        title="published claims recounted: Qwen3-0.6B, 24 anchors, 128 tokens per text,\n10 > 150 classes",
        title_justify="left",
        show_lines=True,
    )
    table.add_column("claim")
    table.add_column("published")
    table.add_column("counted")
    for claim in claims:
        published = "\n".join(f"{name} {low:,g}" for name, (low, _) in claim["published"].items())
        found = "\n".join(f"{name} {value:,.5g}" for name, value in claim["counted"].items())
        outcome = "passed" if claim["passed"] else "not passed"
        table.add_row(f"{claim['id']}, {claim['unit']}\n{outcome}: {claim['tested']}", published, found)
    return table


def notes(result: Record) -> list[str]:
    """What the figures count, and what the published ones leave out, in sentences."""
    whole, backbone = result["dataset_encoding"], result["backbone"]
    lines = [
        "FLOP: products, an addition and a multiplication each counted; clipping and AdamW by elements.",
        f"{whole['texts']:,} distinct texts, {whole['tokens']:,} tokens: {flop(whole['products'])} once; padded in "
        f"batches of {whole['batch']} {whole['padded_products'] / whole['products']:.2f} times as much",
    ]
    if whole["nodes"]:
        lines[-1] += f"; every token prefix once: {1 - whole['nodes'] / whole['tokens']:.0%} fewer positions"
    lines.append(
        f"{backbone['name']}: {backbone['parameters'] / 1e6:,.1f} M parameters, of which "
        f"{backbone['embedding'] / 1e6:,.1f} M are looked up, {flop(backbone['linear'])} per token"
    )
    feature = result["storage"]["feature"]
    lines.append(
        f"cache: {quantity((feature['bytes'] + 24) * whole['texts'], 'B')} of features, keys and checksums "
        f"({feature['bytes']:,} + 24 per text)"
    )
    lines.append(_measured_note(result))
    return lines


def _measured_note(result: Record) -> str:
    if result["machine"] is None:
        return "Seconds were not asked for (--no-measure)."
    if result["speed"] is None:
        return f"Seconds of a step are measured here; those of the backbone are not: {result['not_measured']}."
    return (
        "Seconds per step, per text and per query are measured on this machine; those of a fit are steps and passes "
        "times these, without validation."
    )
