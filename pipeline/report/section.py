"""What every section is made of: a heading with its body, charts in their places, a legend that both share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.report.charts import Reach, Spec, Style
from pipeline.report.markup import Html, tag


@dataclass(frozen=True)
class Section:
    """A heading, what stands below it, and the charts by the name of their place."""

    id: str
    title: str
    body: Html
    charts: Mapping[str, Spec] = field(default_factory=dict)


def legend(looks: Mapping[str, Style]) -> Html:
    """Names beside their colour and shape."""
    return tag(
        "ul",
        [
            tag(
                "li",
                tag("span", class_=f"key {look.shape} {look.colour}", aria_hidden="true"),
                name,
            )
            for name, look in looks.items()
        ],
        class_="legend",
    )


def chart(place: str, caption: str, alt: str) -> Html:
    """The place of a chart, with its caption and what it shows in words."""
    drawn = tag("div", tag("div", id=f"chart-{place}"), class_="chart", role="img", aria_label=alt)
    return tag("figure", tag("figcaption", caption), drawn)


def grid(figures: Sequence[Html]) -> Html:
    """Figures side by side where there is room."""
    return tag("div", *figures, class_="grid")


def axis_note(reach: Reach) -> str:
    """What the upright axis of percentages covers, said beside the chart."""
    return f"The upright axis runs from {reach[0]:g} to {reach[1]:g} %."


def not_yet(what: str, command: str, names: str) -> Html:
    """What was not measured, and the commands that do it; `names` are their options for dataset and backbone."""
    again = [f"pipeline {command} {names}"] + ([f"pipeline report {names}"] if command != "report" else [])
    return tag("div", tag("p", f"{what}. This measures it:"), tag("pre", tag("code", "\n".join(again))))
