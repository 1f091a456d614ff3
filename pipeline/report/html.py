"""The elements of the page: MarkupSafe escapes whatever is not `Markup` already when it is put into a tag.

What every section is made of: a heading with its body, charts in their places, a legend that both share.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from pipeline.report.looks import Reach, Spec, Style
from pipeline.terminal.escape import shown, shown_on_page


@dataclass(frozen=True)
class Figure:
    """A chart: the name of its place, its caption, what it shows in words, and its specification."""

    place: str
    caption: str
    alt: str
    spec: Spec

    @property
    def markup(self) -> Markup:
        """The place where the page's script draws it."""
        drawn = tag("div", tag("div", id=f"chart-{self.place}"), class_="chart", role="img", aria_label=self.alt)
        return tag("figure", tag("figcaption", self.caption), drawn)


@dataclass(frozen=True)
class Section:
    """A heading, what stands below it, and the charts in it.

    `measured`: whether there is something to show; what is not measured yet is collapsed.
    """

    id: str
    title: str
    body: Markup
    figures: Sequence[Figure] = ()
    measured: bool = True


def legend(looks: Mapping[str, Style]) -> Markup:
    """Names beside their colour and shape."""
    keys = {
        name: tag("span", class_=f"key {look.shape}", style=f"--key: var(--{look.colour})", aria_hidden="true")
        for name, look in looks.items()
    }
    return tag("ul", [tag("li", key, name) for name, key in keys.items()], class_="legend")


def grid(figures: Sequence[Figure]) -> Markup:
    """Figures side by side where there is room: in rows of three where two would leave a hole."""
    three = len(figures) in (3, 5) or len(figures) > 6
    return tag("div", *(figure.markup for figure in figures), class_="grid three" if three else "grid")


def typed(lines: Sequence[str]) -> Markup:
    """Commands to type, which scroll by themselves where the page is narrow."""
    return tag("pre", tag("code", "\n".join(lines)), tabindex=0, role="group", aria_label="Commands to type")


def axis_note(reach: Reach) -> str:
    """What the upright axis of percentages covers, said beside the chart."""
    return f"The upright axis runs from {reach[0]:g} to {reach[1]:g} %."


def not_yet(id_: str, title: str, what: str, command: str, names: str) -> Section:
    """A section of what was not measured, with the commands that measure it; `names` are their dataset and backbone."""
    again = [f"pipeline {command} {names}"] + ([f"pipeline report {names}"] if command != "report" else [])
    body = tag("div", tag("p", f"{what}. This measures it:"), typed(again))
    return Section(id_, title, body, measured=False)


_SHORT = 26
"""Names of rows up to so many characters stand on one line."""
Content = str | Iterable[str]
_PERCENT = re.compile(r"(?<=\d) %")
"""Where a line is not to end: before the sign of a number."""


def escaped(content: Content) -> Markup:
    """Markup of some content; plain text is escaped, its control characters are shown; markup stays as it is."""
    if isinstance(content, Markup):
        return content
    return escape(shown_on_page(content)) if isinstance(content, str) else Markup().join(map(escaped, content))


def tag(name: str, *content: Content, **attributes: object) -> Markup:
    """One element; attributes that are None are left out, `class_` is class, other underscores are hyphens."""
    spelled = Markup().join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), shown_on_page(str(value)))
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup().join(map(escaped, content))
    if name in ("p", "figcaption", "caption"):
        inner = Markup(_PERCENT.sub("\u00a0%", inner))
    return Markup("<{0}{1}>{2}</{0}>").format(name, spelled, inner)


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    text: Collection[int] = (0,),
    stacks: bool = False,
) -> Markup:
    """A table that scrolls by itself where the page is narrow; the first column names the rows.

    :param text: the columns that hold text; the others are figures and stand to the right.
    :param stacks: where the page is narrow, cells stand below one another, each below its column's name: for sentences,
        which would be columns of a word each.
    """
    kinds = [None if i in text else "number" for i in range(len(head))]

    def cells(row: Sequence[object]) -> Markup:
        name = str(row[0])
        named = tag("th", name, scope="row", dir="auto", class_="short" if len(name) <= _SHORT else None)
        rest = zip(head[1:], row[1:], kinds[1:], strict=True)
        return tag("tr", named, [
            tag("td", cell if isinstance(cell, Markup) else str(cell), dir="auto",
                class_="none" if stacks and cell == "-" else kind,
                data_column=column if stacks else None)
            for column, cell, kind in rest
        ])  # fmt: skip

    top = tag("tr", [tag("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True)])
    whole = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", [cells(row) for row in rows]))
    return tag(
        "div", whole, class_="scroll stacks" if stacks else "scroll", role="region", tabindex=0, aria_label=caption
    )


def numbers(*tables: Markup, summary: str = "The numbers as a table") -> Markup:
    """Tables that open on demand."""
    return tag("details", tag("summary", summary), *tables)


def isolated(names: Sequence[str]) -> tuple[str, ...]:
    """Names of which those written from right to left leave the order of what stands around them as it is.

    Unicode's isolates (UAX 9, section 2.4) do it in text, in charts and in what a script writes alike.
    """
    return tuple(
        f"\u2068{shown(name)}\u2069" if {"R", "AL"} & set(map(unicodedata.bidirectional, name)) else name
        for name in names
    )


def bullets(items: Iterable[Content]) -> Markup:
    """An unordered list."""
    return tag("ul", [tag("li", item) for item in items])
