"""Altair charts as Vega-Lite specifications, made from the tidy frames of `figures.py`.

A chart is as wide as its place on the page and has neither legend nor title: the page gives both in HTML, where they
can wrap, be read aloud and be chosen by a keyboard. Colours are names of CSS variables ("theme:c0"), which the page
resolves when it draws, so that one specification serves light and dark. The palette is that of Okabe & Ito (2008);
a method has its colour and its shape on every chart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

Spec = dict[str, Any]
Reach = tuple[float, float]
"""Where an axis begins and ends."""

_PLACES = {"v5": 0, "mrl": 1, "joint": 2, "inverted": 3, "no-prefix": 4, "uniform": 5, "logistic": 7}
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
_UNTRAINED = {"features*": ("u0", "stroke"), "pca*": ("u1", "cross")}
_COLOURS = 8
_LEAST = 5.0
"""Points that an axis of percentages covers at least, or noise would fill it."""


@dataclass(frozen=True)
class Style:
    """How a method is drawn: the CSS variable of its colour, and the shape of its points."""

    colour: str
    shape: str


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Give each method a look of its own, the published ones always the same; beyond eight, colours come again."""
    found: dict[str, Style] = {}
    free = [i for i in range(_COLOURS) if i not in {_PLACES[name] for name in names if name in _PLACES}]
    for name in names:
        if name in _UNTRAINED:
            found[name] = Style(*_UNTRAINED[name])
            continue
        place = _PLACES[name] if name in _PLACES else free.pop(0) if free else len(found) % _COLOURS
        found[name] = Style(f"c{place}", _SHAPES[place])
    return found


def reach_of(*columns: pl.Series) -> Reach:
    """Where an axis of percentages may begin and end to show these figures: round numbers that hold them all."""
    low, high = _ends(columns)
    low, high = (low, high) if high - low >= _LEAST else (max(0.0, min(low, 100.0 - _LEAST)), min(100.0, low + _LEAST))
    step = next((step for step in (1, 2, 5) if high - low <= 7 * step), 10)
    begin, end = max(0, math.floor(low / step) * step), min(100, math.ceil(high / step) * step)
    return (begin, end) if begin < end else (begin - step, end) if end == 100 else (begin, end + step)


def span_of(*columns: pl.Series) -> Reach:
    """Where an axis of differences may begin and end: it holds them all, zero, and a little room."""
    low, high = _ends(columns)
    room = max(0.5, (max(high, 0.0) - min(low, 0.0)) * 0.04)
    return min(low, 0.0) - room, max(high, 0.0) + room


def _ends(columns: Sequence[pl.Series]) -> Reach:
    return min(float(c.min()) for c in columns), max(float(c.max()) for c in columns)  # type: ignore[arg-type]


def difference_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: Reach) -> Spec:
    """Differences from one method in points with their intervals: the shortest prefix filled, full vectors hollow."""
    import altair as alt

    scale = alt.Scale(domain=list(reach), nice=False)
    x = alt.X("value:Q", title="points", scale=scale, axis=alt.Axis(tickCount=6))
    names = frame["method"].unique(maintain_order=True).to_list()
    y = alt.Y("method:N", title=None, sort=names, axis=alt.Axis(labelLimit=130, grid=False, ticks=False, domain=False))
    base = alt.Chart(frame).encode(
        y=y, yOffset=alt.YOffset("full:O", sort=[False, True]), color=_colour(looks), tooltip=_tips("vectors")
    )
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color="theme:muted").encode(x="zero:Q")
    interval = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title="points", scale=scale), x2="high:Q")
    filled = base.transform_filter("!datum.full").mark_point(filled=True, size=60, opacity=1)
    hollow = base.transform_filter("datum.full").mark_point(
        filled=False, fill="theme:paper", size=50, opacity=1, strokeWidth=2
    )
    return _spec(alt.layer(zero, interval, filled.encode(x=x), hollow.encode(x=x)), height=30 * len(names) + 10)


def dumbbell_chart(frame: pl.DataFrame, order: Sequence[str]) -> Spec:
    """Differences in points, a line each: hollow at `small`, filled at `large`."""
    import altair as alt

    scale = alt.Scale(domain=list(span_of(frame["small"], frame["large"])), nice=False)
    y = alt.Y("difference:N", sort=list(order), title=None,
              axis=alt.Axis(labelLimit=260, grid=False, ticks=False, domain=False))  # fmt: skip
    tips = ["difference:N", alt.Tooltip("small:Q", format="+.1f"), alt.Tooltip("large:Q", format="+.1f")]
    base = alt.Chart(frame).encode(y=y, tooltip=tips)
    axis = alt.Axis(tickCount=6)
    x = {name: alt.X(f"{name}:Q", title="points", scale=scale, axis=axis) for name in ("small", "large")}
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color="theme:muted").encode(x="zero:Q")
    line = base.mark_rule(strokeWidth=2.5, color="theme:line").encode(x=x["small"], x2="large:Q")
    hollow = base.mark_point(filled=False, fill="theme:paper", size=80, strokeWidth=2, color="theme:far", opacity=1)
    filled = base.mark_point(filled=True, size=80, color="theme:accent", opacity=1)
    return _spec(
        alt.layer(zero, line, hollow.encode(x=x["small"]), filled.encode(x=x["large"])), height=28 * len(order) + 10
    )


def accuracy_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: Reach) -> Spec:
    """Accuracy against prefix of one protocol and level, with 95 % intervals; points are set apart sideways."""
    import altair as alt

    dims = sorted(frame["dim"].unique().to_list())
    apart = (dims[-1] - dims[0]) / 100 if len(dims) > 1 else 1
    aside = {name: (place - (len(looks) - 1) / 2) * apart for place, name in enumerate(looks)}
    room = (len(looks) / 2 + 1) * apart
    moved = frame.with_columns(
        (pl.col("dim") + pl.col("method").replace_strict(aside, return_dtype=pl.Float64)).alias("x")
    )
    x = alt.X(
        "x:Q",
        title="dimensions kept",
        axis=alt.Axis(values=dims, grid=False),
        scale=alt.Scale(domain=[dims[0] - room, dims[-1] + room], nice=False),
    )
    return _spec(_line_with_intervals(moved, x, reach, looks), height=260)


def answer_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: Reach) -> Spec:
    """Accuracy against prefix of one level: a line per method in its band, named where it ends."""
    import altair as alt

    dims = sorted(frame["dim"].unique().to_list())
    room = (dims[-1] - dims[0]) * 0.42 if len(dims) > 1 else 1
    x = alt.X(
        "dim:Q", title="dimensions kept", axis=alt.Axis(values=dims, grid=False),
        scale=alt.Scale(domain=[dims[0] - room / 15, dims[-1] + room], nice=False),
    )  # fmt: skip
    base = alt.Chart(frame).encode(x=x, color=_colour(looks), tooltip=_tips("dim"))
    bands = base.mark_area(opacity=0.16, clip=True).encode(y=_percent("low", reach, "accuracy, %"), y2="high:Q")
    y = _percent("value", reach, "accuracy, %")
    lines = base.mark_line(strokeWidth=2.4).encode(y=y)
    points = base.mark_point(filled=True, size=45, opacity=1).encode(y=y, shape=_shape(looks))
    last = frame.sort("dim").group_by("method", maintain_order=True).last().sort("value", descending=True)
    apart = (reach[1] - reach[0]) * 0.085
    places: list[float] = []
    lowest: dict[int, float] = {}  # of the names that end at the same prefix
    for value, dim in zip(last["value"], last["dim"], strict=True):
        lowest[dim] = min(value, lowest[dim] - apart) if dim in lowest else value
        places.append(lowest[dim])
    named = alt.Chart(last.with_columns(pl.Series("place", places, pl.Float64))).encode(
        x=x, y=_percent("place", reach, "accuracy, %"), text="method:N"
    )
    halo = named.mark_text(align="left", dx=8, fontSize=12, stroke="theme:paper", strokeWidth=4, strokeJoin="round")
    names = named.mark_text(align="left", dx=8, fontSize=12).encode(color=_colour(looks))
    return _spec(alt.layer(bands, lines, points, halo, names), height=210)


def gallery_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: Reach) -> Spec:
    """Accuracy at one prefix and level against the gallery's size: training rows solid, held-out rows dashed."""
    import altair as alt

    x = alt.X(
        "gallery:Q",
        title="texts in the gallery (log scale)",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(values=_apart(frame["gallery"].unique().to_list()), format=",d", labelOverlap=True, grid=False),
    )
    y = _percent("value", reach)
    dash = alt.StrokeDash("rows:N", scale=alt.Scale(domain=["train", "held-out"], range=[[1, 0], [5, 4]]), legend=None)
    base = alt.Chart(frame).encode(x=x, color=_colour(looks), detail="rows:N", tooltip=_tips("gallery", "rows"))
    band = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(y=_percent("low", reach), y2="high:Q")
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash)
    points = base.mark_point(filled=True, size=45, opacity=1).encode(y=y, shape=_shape(looks))
    return _spec(alt.layer(band, line, points), height=260)


def steerability_chart(frame: pl.DataFrame, looks: Mapping[str, Style], reach: tuple[float, float]) -> Spec:
    """One term of steerability, in points: filled points of the gallery protocol, hollow ones of leave-one-out."""
    import altair as alt

    x = alt.X("value:Q", title="points of accuracy", scale=alt.Scale(domain=list(reach), nice=False),
              axis=alt.Axis(tickCount=5))  # fmt: skip
    low = alt.X("low:Q", title="points of accuracy", scale=alt.Scale(domain=list(reach), nice=False))
    y = alt.Y("method:N", title=None, sort=list(looks), axis=alt.Axis(labelLimit=130))
    offset = alt.YOffset("protocol:N", sort=["gallery", "leave-one-out"])
    base = alt.Chart(frame).encode(y=y, yOffset=offset, color=_colour(looks), tooltip=_tips("protocol"))
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color="theme:muted").encode(x="zero:Q")
    interval = base.mark_rule(strokeWidth=1.5).encode(x=low, x2="high:Q")
    filled = base.transform_filter("datum.protocol == 'gallery'").mark_point(filled=True, size=60, opacity=1)
    hollow = base.transform_filter("datum.protocol != 'gallery'").mark_point(
        filled=False, fill="theme:paper", size=55, opacity=1, strokeWidth=2
    )
    marks = [mark.encode(x=x, shape=_shape(looks)) for mark in (filled, hollow)]
    return _spec(alt.layer(zero, interval, *marks), height=max(110, 44 * frame["method"].n_unique()))


def recall_chart(frame: pl.DataFrame, looks: Mapping[str, Style], cost: str, value: str, reach: Reach) -> Spec:
    """A share in percent against a cost, one line per method and filter: the shortest solid, longer ones dashed."""
    import altair as alt

    titles = {
        "candidates": "candidates kept (log scale)", "flops": "operations per query (log scale)",
        "recall": "recall at 10, %", "precision": "precision at 10, %",
    }  # fmt: skip
    filters = sorted(frame["dims"].unique().to_list())
    axis = alt.Axis(format="~s", labelOverlap=True, grid=False, tickCount=5)
    x = alt.X(f"{cost}:Q", title=titles[cost], scale=alt.Scale(type="log", nice=False, padding=12), axis=axis)
    dashes = [[1, 0], [5, 4], [2, 3], [8, 3, 2, 3]]
    ranges = [dashes[min(place, len(dashes) - 1)] for place in range(len(filters))]
    dash = alt.StrokeDash("dims:N", scale=alt.Scale(domain=filters, range=ranges), legend=None)
    base = alt.Chart(frame).encode(
        x=x, y=_percent(value, reach, titles[value]), color=_colour(looks), detail="dims:N",
        tooltip=["method:N", "dims:N", "candidates:Q", *_shown("recall", "precision", "flops")],
    )  # fmt: skip
    lines = base.mark_line(strokeWidth=1.8).encode(strokeDash=dash, order="candidates:Q")
    points = base.mark_point(filled=True, size=40, opacity=1).encode(shape=_shape(looks))
    return _spec(alt.layer(lines, points), height=260)


def errors_chart(frame: pl.DataFrame, names: Sequence[str], top: float) -> Spec:
    """Wrong finest answers at one prefix, in percent of texts, split by whether the parent is right."""
    import altair as alt

    tidy = frame.unpivot(
        ["sibling", "stranger"], index="method", variable_name="kind", value_name="share"
    ).with_columns((pl.col("kind") == "stranger").cast(pl.Int8).alias("place"))
    x = alt.X(
        "share:Q", title="wrong, % of texts", scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(tickCount=6)
    )
    y = alt.Y("method:N", sort=list(names), title=None, axis=alt.Axis(labelLimit=130))
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=["sibling", "stranger"], range=["theme:near", "theme:far"]), legend=None
    )
    bars = (
        alt.Chart(tidy)
        .mark_bar(height={"band": 0.7})
        .encode(x=x, y=y, color=colour, order=alt.Order("place:Q"), tooltip=["method:N", "kind:N", *_shown("share")])
    )
    return _spec(bars, height=max(90, 34 * tidy["method"].n_unique()))


def parents_chart(frame: pl.DataFrame, looks: Mapping[str, Style], parents: Sequence[str]) -> Spec:
    """Wrong finest answers by level-0 class, one row each in the order given, one point per method."""
    import altair as alt

    x = alt.X("wrong:Q", title="wrong, % of the class's texts", scale=alt.Scale(zero=True, nice=True))
    y = alt.Y("parent:N", sort=list(parents), title=None, axis=alt.Axis(labelLimit=150, grid=True))
    points = (
        alt.Chart(frame)
        .mark_point(filled=True, size=50, opacity=0.9)
        .encode(
            x=x,
            y=y,
            color=_colour(looks),
            shape=_shape(looks),
            tooltip=["parent:N", "method:N", *_shown("wrong"), "texts:Q"],
        )
    )
    return _spec(points, height=max(120, 20 * len(parents)))


def confusion_chart(frame: pl.DataFrame, parents: Sequence[str], level: str) -> Spec:
    """Which other parent's label texts are given, in percent of the true parent's texts."""
    import altair as alt

    side = max(160, 17 * len(parents))
    x = alt.X(
        "answer:N",
        sort=list(parents),
        title=f"{level} of the answer",
        axis=alt.Axis(labelAngle=-90, labelLimit=110, grid=False),
    )
    y = alt.Y("truth:N", sort=list(parents), title=f"true {level}", axis=alt.Axis(labelLimit=110, grid=False))
    scale = alt.Scale(domainMin=0, range=["theme:sunk", "theme:far"], interpolate="rgb")
    cells = (
        alt.Chart(frame)
        .mark_rect(stroke="theme:paper", strokeWidth=1)
        .encode(
            x=x,
            y=y,
            tooltip=["truth:N", "answer:N", *_shown("share")],
            color=alt.Color(
                "share:Q", scale=scale, legend=alt.Legend(orient="bottom", title="% of texts", gradientLength=120)
            ),
        )
    )
    return _spec(cells, height=side)


def training_chart(frame: pl.DataFrame, looks: Mapping[str, Style], title: str, reach: Reach | None) -> Spec:
    """A quantity by epoch: one thin line per seed, a point where the epoch was kept."""
    import altair as alt

    scale = alt.Scale(zero=False) if reach is None else alt.Scale(domain=list(reach), nice=False)
    y = alt.Y("value:Q", title=title, scale=scale)
    x = alt.X(
        "epoch:Q",
        title="epoch",
        axis=alt.Axis(tickMinStep=1, format="d", grid=False),
        scale=alt.Scale(nice=False, padding=12),
    )
    base = alt.Chart(frame).encode(
        x=x, y=y, color=_colour(looks), detail="seed:N", tooltip=["method:N", "seed:N", "epoch:Q", *_shown("value")]
    )
    lines = base.mark_line(strokeWidth=1.5, opacity=0.75)
    kept = base.transform_filter("datum.best").mark_point(filled=True, size=60, opacity=1).encode(shape=_shape(looks))
    return _spec(alt.layer(lines, kept), height=220)


def _apart(sizes: Sequence[int]) -> list[int]:
    """Sizes whose labels have room on a log scale: those that the next one does not follow closely."""
    ordered = sorted(sizes)
    return [size for size, after in zip(ordered, [*ordered[1:], ordered[-1] * 2], strict=True) if after > size * 1.3]


def _line_with_intervals(frame: pl.DataFrame, x: Any, reach: Reach, looks: Mapping[str, Style]) -> Any:
    import altair as alt

    base = alt.Chart(frame).encode(x=x, color=_colour(looks), tooltip=_tips("dim"))
    intervals = base.mark_rule(strokeWidth=1.5, clip=True).encode(y=_percent("low", reach), y2="high:Q")
    y = _percent("value", reach)
    dashed = alt.StrokeDash(
        "method:N",
        legend=None,
        scale=alt.Scale(domain=list(looks), range=[[4, 3] if name.endswith("*") else [1, 0] for name in looks]),
    )
    lines = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dashed)
    points = base.mark_point(filled=True, size=55, opacity=1).encode(y=y, shape=_shape(looks))
    return alt.layer(intervals, lines, points)


def _percent(field: str, reach: Reach, title: str = "accuracy, % of texts") -> Any:
    import altair as alt

    return alt.Y(f"{field}:Q", title=title, scale=alt.Scale(domain=list(reach), nice=False))


def _colour(looks: Mapping[str, Style]) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(looks), range=[f"theme:{look.colour}" for look in looks.values()])
    return alt.Color("method:N", scale=scale, legend=None)


def _shape(looks: Mapping[str, Style]) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(looks), range=[look.shape for look in looks.values()])
    return alt.Shape("method:N", scale=scale, legend=None)


def _tips(*facts: str) -> list[Any]:
    return ["method:N", *(f"{fact}:N" for fact in facts), *_shown("value", "low", "high")]


def _shown(*fields: str) -> list[Any]:
    import altair as alt

    return [
        alt.Tooltip(
            f"{field}:Q",
            format=",.4~g" if field not in ("value", "low", "high", "share", "wrong", "recall", "precision") else ".1f",
        )
        for field in fields
    ]


def _spec(chart: Any, height: int) -> Spec:
    """The specification alone: size by its place, data beside it, no configuration (the page's theme has that)."""
    spec: Spec = chart.properties(width="container", height=height).to_dict(validate=False)
    spec.pop("config", None)
    spec.pop("$schema", None)
    return {**spec, "autosize": {"type": "fit-x", "contains": "padding"}}
