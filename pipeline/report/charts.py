"""Altair charts as Vega-Lite specifications, made from the tidy frames of `frames.py`.

A chart is as wide as its place on the page and has neither legend nor title: the page gives both in HTML, where they
can wrap, be read aloud and be chosen by a keyboard. Colours are names of CSS variables ("theme:c0"), which the page
resolves when it draws, so that one specification serves light and dark. The palette is that of Okabe & Ito (2008);
a method has its colour and its shape on every chart.

Altair is an extra: `page.page` imports this module, and those that draw with it, when it writes a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from pipeline.report.looks import Reach, Spec, Style, span_of

_BARE = {"grid": False, "ticks": False, "domain": False}
"""An axis of names alone."""


def difference_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: Reach) -> Spec:
    """Differences from one method in points with their intervals: the shortest prefix filled, full vectors hollow."""
    names = frame["method"].unique(maintain_order=True).to_list()
    base = alt.Chart(frame).encode(
        y=_names("method:N", names, 130, **_BARE), yOffset=alt.YOffset("full:O", sort=[False, True]),
        color=_colour(looks), tooltip=_tips("vectors"),
    )  # fmt: skip
    low = alt.X("low:Q", title="points", scale=_scale(reach))
    x = alt.X("value:Q", title="points", scale=_scale(reach), axis=alt.Axis(tickCount=6))
    interval = base.mark_rule(strokeWidth=1.5).encode(x=low, x2="high:Q")
    filled = _filled(base.transform_filter("!datum.full"), 60).encode(x=x)
    hollow = _hollow(base.transform_filter("datum.full"), 50).encode(x=x)
    return _spec(alt.layer(_zero(), interval, filled, hollow), height=30 * len(names) + 10)


def dumbbell_chart(frame: pl.DataFrame, order: Sequence[str]) -> Spec:
    """Differences in points, a line each: hollow at `small`, filled at `large`."""
    tips = ["difference:N", alt.Tooltip("small:Q", format="+.1f"), alt.Tooltip("large:Q", format="+.1f")]
    base = alt.Chart(frame).encode(y=_names("difference:N", order, 260, **_BARE), tooltip=tips)
    scale, axis = _scale(span_of(frame["small"], frame["large"])), alt.Axis(tickCount=6)
    small, large = (alt.X(f"{name}:Q", title="points", scale=scale, axis=axis) for name in ("small", "large"))
    line = base.mark_rule(strokeWidth=2.5, color="theme:line").encode(x=small, x2="large:Q")
    hollow, filled = _hollow(base, 80, color="theme:far"), _filled(base, 80, color="theme:accent")
    marks = (_zero(), line, hollow.encode(x=small), filled.encode(x=large))
    return _spec(alt.layer(*marks), height=28 * len(order) + 10)


def accuracy_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: Reach) -> Spec:
    """Accuracy against prefix of one protocol and level, with 95 % intervals; points are set apart sideways."""
    dims = sorted(frame["dim"].unique().to_list())
    apart = (dims[-1] - dims[0]) / 100 if len(dims) > 1 else 1
    aside = {name: (place - (len(looks) - 1) / 2) * apart for place, name in enumerate(looks)}
    room = (len(looks) / 2 + 1) * apart
    moved = frame.with_columns(
        (pl.col("dim") + pl.col("method").replace_strict(aside, return_dtype=pl.Float64)).alias("x")
    )
    base = alt.Chart(moved).encode(
        x=_kept("x:Q", dims, (dims[0] - room, dims[-1] + room)), color=_colour(looks), tooltip=_tips("dim")
    )
    dashes = [[4, 3] if name.endswith("*") else [1, 0] for name in looks]
    return _spec(_lines(base, looks, reach, _dash("method:N", list(looks), dashes), 55, clip=True), height=260)


def answer_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: Reach) -> Spec:
    """Accuracy against prefix of one level: a line per method in its band, named where it ends."""
    dims = sorted(frame["dim"].unique().to_list())
    room = (dims[-1] - dims[0]) * 0.42 if len(dims) > 1 else 1
    x = _kept("dim:Q", dims, (dims[0] - room / 15, dims[-1] + room))
    low, y, place = (_percent(field, reach, "accuracy, %") for field in ("low", "value", "place"))
    base = alt.Chart(frame).encode(x=x, color=_colour(looks), tooltip=_tips("dim"))
    bands = base.mark_area(opacity=0.16, clip=True).encode(y=low, y2="high:Q")
    lines = base.mark_line(strokeWidth=2.4).encode(y=y)
    points = _filled(base, 45).encode(y=y, shape=_shape(looks))
    last = frame.sort("dim").group_by("method", maintain_order=True).last().sort("value", descending=True)
    apart = (reach[1] - reach[0]) * 0.085
    places: list[float] = []
    lowest: dict[int, float] = {}  # of the names that end at the same prefix
    for value, dim in zip(last["value"], last["dim"], strict=True):
        lowest[dim] = min(value, lowest[dim] - apart) if dim in lowest else value
        places.append(lowest[dim])
    ends = last.with_columns(pl.Series("place", places, pl.Float64))
    named = alt.Chart(ends).encode(x=x, y=place, text="method:N")
    halo = named.mark_text(align="left", dx=8, fontSize=12, stroke="theme:paper", strokeWidth=4, strokeJoin="round")
    names = named.mark_text(align="left", dx=8, fontSize=12).encode(color=_colour(looks))
    return _spec(alt.layer(bands, lines, points, halo, names), height=210)


def gallery_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: Reach) -> Spec:
    """Accuracy at one prefix and level against the gallery's size: training rows solid, held-out rows dashed."""
    sizes = sorted(frame["gallery"].unique().to_list())
    labelled = [size for size, after in zip(sizes, [*sizes[1:], sizes[-1] * 2], strict=True) if after > size * 1.3]
    axis = alt.Axis(values=labelled, format=",d", labelOverlap=True, grid=False)  # labels that have room
    scale = alt.Scale(type="log", nice=False)
    x = alt.X("gallery:Q", title="texts in the gallery (log scale)", scale=scale, axis=axis)
    base = alt.Chart(frame).encode(x=x, color=_colour(looks), detail="rows:N", tooltip=_tips("gallery", "rows"))
    dash = _dash("rows:N", ["train", "held-out"], [[1, 0], [5, 4]])
    return _spec(_lines(base, looks, reach, dash, 45, opacity=0.6), height=260)


def steerability_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: Reach) -> Spec:
    """One term of steerability, in points: filled points of the gallery protocol, hollow ones of leave-one-out."""
    base = alt.Chart(frame).encode(
        y=_names("method:N", list(looks), 130), yOffset=alt.YOffset("protocol:N", sort=["gallery", "leave-one-out"]),
        color=_colour(looks), tooltip=_tips("protocol"),
    )  # fmt: skip
    title = "points of accuracy"
    low = alt.X("low:Q", title=title, scale=_scale(reach))
    x = alt.X("value:Q", title=title, scale=_scale(reach), axis=alt.Axis(tickCount=5))
    interval = base.mark_rule(strokeWidth=1.5).encode(x=low, x2="high:Q")
    filled = _filled(base.transform_filter("datum.protocol == 'gallery'"), 60).encode(x=x, shape=_shape(looks))
    hollow = _hollow(base.transform_filter("datum.protocol != 'gallery'"), 55).encode(x=x, shape=_shape(looks))
    return _spec(alt.layer(_zero(), interval, filled, hollow), height=max(110, 44 * frame["method"].n_unique()))


def recall_chart(frame: pl.DataFrame, looks: Mapping[str, Style], cost: str, value: str, reach: Reach) -> Spec:
    """A share in percent against a cost, one line per method and filter: the shortest solid, longer ones dashed."""
    titles = {
        "candidates": "candidates kept (log scale)", "flops": "operations per query (log scale)",
        "recall": "recall at 10, %", "precision": "precision at 10, %",
    }  # fmt: skip
    filters = sorted(frame["dims"].unique().to_list())
    axis = alt.Axis(format="~s", labelOverlap=True, grid=False, tickCount=5)
    x = alt.X(f"{cost}:Q", title=titles[cost], scale=alt.Scale(type="log", nice=False, padding=12), axis=axis)
    dashes = [[1, 0], [5, 4], [2, 3], [8, 3, 2, 3]]
    dash = _dash("dims:N", filters, [dashes[min(place, len(dashes) - 1)] for place in range(len(filters))])
    base = alt.Chart(frame).encode(
        x=x, y=_percent(value, reach, titles[value]), color=_colour(looks), detail="dims:N",
        tooltip=["method:N", "dims:N", "candidates:Q", *_shown("recall", "precision", "flops")],
    )  # fmt: skip
    lines = base.mark_line(strokeWidth=1.8).encode(strokeDash=dash, order="candidates:Q")
    return _spec(alt.layer(lines, _filled(base, 40).encode(shape=_shape(looks))), height=260)


def errors_chart(frame: pl.DataFrame, names: Sequence[str], top: float) -> Spec:
    """Wrong finest answers at one prefix, in percent of texts, split by whether the parent is right."""
    kinds = ["sibling", "stranger"]
    tidy = frame.unpivot(kinds, index="method", variable_name="kind", value_name="share").with_columns(
        (pl.col("kind") == "stranger").cast(pl.Int8).alias("place")
    )
    bars = alt.Chart(tidy).encode(
        x=alt.X("share:Q", title="wrong, % of texts", scale=_scale((0, top)), axis=alt.Axis(tickCount=6)),
        y=_names("method:N", names, 130),
        color=alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=["theme:near", "theme:far"]), legend=None),
        order=alt.Order("place:Q"),
        tooltip=["method:N", "kind:N", *_shown("share")],
    )
    return _spec(bars.mark_bar(height={"band": 0.7}), height=max(90, 34 * tidy["method"].n_unique()))


def parents_chart(frame: pl.DataFrame, looks: Mapping[str, Style], parents: Sequence[str]) -> Spec:
    """Wrong finest answers by level-0 class, one row each in the order given, one point per method."""
    points = alt.Chart(frame).encode(
        x=alt.X("wrong:Q", title="wrong, % of the class's texts", scale=alt.Scale(zero=True, nice=True)),
        y=_names("parent:N", parents, 150, grid=True),
        color=_colour(looks),
        shape=_shape(looks),
        tooltip=["parent:N", "method:N", *_shown("wrong"), "texts:Q"],
    )
    return _spec(points.mark_point(filled=True, size=50, opacity=0.9), height=max(120, 20 * len(parents)))


def confusion_chart(frame: pl.DataFrame, parents: Sequence[str], level: str) -> Spec:
    """Which other parent's label texts are given, in percent of the true parent's texts."""
    scale = alt.Scale(domainMin=0, range=["theme:sunk", "theme:far"], interpolate="rgb")
    across, down = alt.Axis(labelAngle=-90, labelLimit=110, grid=False), alt.Axis(labelLimit=110, grid=False)
    cells = alt.Chart(frame).encode(
        x=alt.X("answer:N", sort=list(parents), title=f"{level} of the answer", axis=across),
        y=alt.Y("truth:N", sort=list(parents), title=f"true {level}", axis=down),
        tooltip=["truth:N", "answer:N", *_shown("share")],
        color=alt.Color(
            "share:Q", scale=scale, legend=alt.Legend(orient="bottom", title="% of texts", gradientLength=120)
        ),
    )
    return _spec(cells.mark_rect(stroke="theme:paper", strokeWidth=1), height=max(160, 17 * len(parents)))


def training_chart(frame: pl.DataFrame, looks: Mapping[str, Style], title: str, reach: Reach | None) -> Spec:
    """A quantity by epoch: one thin line per seed, a point where the epoch was kept."""
    axis, padded = alt.Axis(tickMinStep=1, format="d", grid=False), alt.Scale(nice=False, padding=12)
    base = alt.Chart(frame).encode(
        x=alt.X("epoch:Q", title="epoch", axis=axis, scale=padded),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False) if reach is None else _scale(reach)),
        color=_colour(looks),
        detail="seed:N",
        tooltip=["method:N", "seed:N", "epoch:Q", *_shown("value")],
    )
    lines = base.mark_line(strokeWidth=1.5, opacity=0.75)
    kept = _filled(base.transform_filter("datum.best"), 60).encode(shape=_shape(looks))
    return _spec(alt.layer(lines, kept), height=220)


def _lines(base: Any, looks: Mapping[str, Style], reach: Reach, dash: Any, size: int, **interval: Any) -> Any:
    """Accuracies as lines with their points, and upright bars as their intervals."""
    y = _percent("value", reach)
    intervals = base.mark_rule(strokeWidth=1.5, **interval).encode(y=_percent("low", reach), y2="high:Q")
    lines = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash)
    return alt.layer(intervals, lines, _filled(base, size).encode(y=y, shape=_shape(looks)))


def _filled(base: Any, size: int, **more: Any) -> Any:
    return base.mark_point(filled=True, size=size, opacity=1, **more)


def _hollow(base: Any, size: int, **more: Any) -> Any:
    return base.mark_point(filled=False, fill="theme:paper", size=size, opacity=1, strokeWidth=2, **more)


def _zero() -> Any:
    """The upright line where there is no difference."""
    return alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color="theme:muted").encode(x="zero:Q")


def _scale(reach: Reach) -> Any:
    return alt.Scale(domain=list(reach), nice=False)


def _kept(field: str, dims: Sequence[int], reach: Reach) -> Any:
    """The axis of prefixes."""
    return alt.X(field, title="dimensions kept", axis=alt.Axis(values=dims, grid=False), scale=_scale(reach))


def _percent(field: str, reach: Reach, title: str = "accuracy, % of texts") -> Any:
    return alt.Y(f"{field}:Q", title=title, scale=_scale(reach))


def _names(field: str, order: Sequence[str], limit: int, **axis: Any) -> Any:
    """An upright axis of names in the order given, as wide as `limit` pixels."""
    return alt.Y(field, title=None, sort=list(order), axis=alt.Axis(labelLimit=limit, **axis))


def _dash(field: str, names: Sequence[Any], dashes: Sequence[Sequence[int]]) -> Any:
    return alt.StrokeDash(field, scale=alt.Scale(domain=names, range=dashes), legend=None)


def _colour(looks: Mapping[str, Style]) -> Any:
    scale = alt.Scale(domain=list(looks), range=[f"theme:{look.colour}" for look in looks.values()])
    return alt.Color("method:N", scale=scale, legend=None)


def _shape(looks: Mapping[str, Style]) -> Any:
    scale = alt.Scale(domain=list(looks), range=[look.shape for look in looks.values()])
    return alt.Shape("method:N", scale=scale, legend=None)


def _tips(*facts: str) -> list[Any]:
    return ["method:N", *(f"{fact}:N" for fact in facts), *_shown("value", "low", "high")]


def _shown(*fields: str) -> list[Any]:
    return [alt.Tooltip(f"{field}:Q", format=",.4~g" if field == "flops" else ".1f") for field in fields]


def _spec(chart: Any, height: int) -> Spec:
    """The specification alone: size by its place, data beside it, no configuration (the page's theme has that)."""
    spec: Spec = chart.properties(width="container", height=height).to_dict(validate=False)
    spec.pop("config", None)
    spec.pop("$schema", None)
    return {**spec, "autosize": {"type": "fit-x", "contains": "padding"}}
