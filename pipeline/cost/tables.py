"""The cost tables a person reads, made of the records that `--json` prints. Every figure carries its unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def _table(title: str, columns: Sequence[str]) -> Table:
    """A table whose first column is text and whose others are figures."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def step_table(trainings: Sequence[Record]) -> Table:
    """One training step of each method: with the backbone in the loop above, what the cache leaves below."""
    table = _table("one training step, counted", ("FLOP per step", *(r["method"] for r in trainings)))
    table.add_row("anchors", *(f"{r['batch']:,}" for r in trainings))
    table.add_row("backbone passes in the loop", *(f"{r['passes']:,}" for r in trainings))
    table.add_row("  of texts of 128 tokens", *(flop(r["published_backbone"]) for r in trainings))
    table.add_row("  of the dataset's lengths", *(flop(r["loop_backbone"]) for r in trainings))
    table.add_row("  padded to the longest", *(flop(r["padded_backbone"]) for r in trainings))
    table.add_section()
    steps = [r["step"] for r in trainings]
    losses = [step["losses"] for step in steps]
    table.add_row("rows through the head", *(f"{step['rows']:,}" for step in steps))
    table.add_row("  forward", *(flop(step["head_forward"]) for step in steps))
    table.add_row("  backward", *(flop(step["head_backward"]) for step in steps))
    table.add_row("loss terms", *(f"{step['terms']}" for step in steps))
    table.add_row("  cosines", *(flop(loss["contrast"] + loss["margin"]) for loss in losses))
    table.add_row("  classifiers", *(flop(loss["classification"]) for loss in losses))
    table.add_row("  their gradients", *(flop(loss["backward"]) for loss in losses))
    table.add_row("clipping and AdamW", *(flop(step["optimiser"]) for step in steps))
    table.add_row("with the cache, in all", *(flop(step["total"]) for step in steps))
    if any(r["seconds"]["step"] is not None for r in trainings):
        table.add_row("measured", *(seconds(r["seconds"]["step"]) for r in trainings))
    return table


def fit_table(trainings: Sequence[Record]) -> Table:
    """A whole fit: backbone passes, operations, seconds, with and without the cache, and what a further fit costs."""
    table = _table("one fit", ("", *(r["method"] for r in trainings)))
    table.add_row("epochs x steps", *(f"{r['epochs']} x {r['steps'] // r['epochs']:,}" for r in trainings))
    kinds = {"loop": "backbone in the loop", "cached": "cached, first fit", "next_fit": "every further fit"}
    for key, title in kinds.items():
        table.add_section()
        table.add_row(f"{title}: passes", *(f"{r[key]['passes']:,}" for r in trainings))
        table.add_row("  operations", *(flop(r[key]["total"]) for r in trainings))
        table.add_row("  seconds", *(seconds(r["seconds"][key]) for r in trainings))
    table.add_section()
    for key, title in (("next_fit", "loop / further fit"), ("cached", "loop / first fit")):
        table.add_row(title, *(f"{r['loop']['total'] / r[key]['total']:,.0f} x" for r in trainings))
    table.add_section()
    memory = {
        "backbone": "memory: backbone, bfloat16", "features": "  features instead", "head": "  head, gradients, AdamW",
    }  # fmt: skip
    for key, title in memory.items():
        table.add_row(title, *(quantity(r["bytes"][key], "B") for r in trainings))
    return table


def encoding_table(encodings: Sequence[Record], speed: Record | None) -> Table:
    """One text through backbone and head, by length."""
    columns = ("text", "tokens", "backbone", "attention", "no products", "head")
    table = _table("encoding one text, the same for every method", columns)
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
    title = "published claims recounted: Qwen3-0.6B, 24 anchors, 128 tokens per text,\n10 > 150 classes"
    table = Table("claim", "published", "counted", title=title, title_justify="left", show_lines=True)
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
