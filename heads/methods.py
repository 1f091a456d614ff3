"""Training methods as tables: which labels supervise which prefix.

A method is a list of terms. A term looks at the anchors through a view (a certain prefix, a prefix drawn per sample, or
the full vector with blocks dropped at random), and a table [prefix, level] says how much each level's labels weigh at
each prefix. Everything else follows: the positive of a sample is a text of the finest class that weighs at its prefix.
So a new method is a few numbers here, not another loop. `joint` differs in its loss, not in this scheme: it looks at
every prefix through the labels of every level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from numbers import Integral, Real
from typing import Any, TypeAlias

from heads.errors import HeadsError

Table: TypeAlias = tuple[tuple[float, ...], ...]

KEEP = (0.95, 0.9, 0.8, 0.7)
"""Probability with which block dropout keeps each block of the full vector."""

PREFIX_WEIGHT = 0.6
"""Weight of the prefix loss beside the full vector's."""

SCHEDULES = ("constant", "one-cycle")
"""What the learning rate may do over a fit (`heads/training/optimiser.py`)."""


class View(Enum):
    """What a term sees of an anchor, where it is not one fixed prefix."""

    DROPPED = "full vector, blocks dropped at random"
    SAMPLED = "prefix drawn per sample"


@dataclass(frozen=True)
class Term:
    """Three losses (contrast, margin, classification) on one view of the anchors.

    `view` is a View or a prefix 1..J; `levels` is the table [J, L] of level weights, each row summing to 1; `weight`
    is the term's weight in the loss.
    """

    view: View | int
    weight: float
    levels: Table

    def positive_levels(self, scales: int) -> tuple[int, ...]:
        """Say from which level's class a sample's positive is drawn, for each prefix 1..J it may have."""
        finest = tuple(max(level for level, weight in enumerate(row) if weight) for row in self.levels)
        if self.view is View.SAMPLED:
            return finest
        return (finest[scales - 1 if self.view is View.DROPPED else self.view - 1],) * scales


Supervision: TypeAlias = tuple[Term, ...]


def _only(level: int, levels: int, scales: int) -> Table:
    return (tuple(float(at == level) for at in range(levels)),) * scales


def _around(scales: int, levels: int) -> Table:
    """Spread the levels above the finest over the prefixes: prefix j at (j-1)(L-2)/(J-1), blended linearly."""
    rows = []
    for j in range(scales):
        place = j * max(0, levels - 2) / (scales - 1) if scales > 1 else 0.0
        rows.append(tuple(max(0.0, 1 - abs(level - place)) for level in range(levels)))
    return tuple(rows)


def _v5(scales: int, levels: int) -> Supervision:
    return (
        Term(View.DROPPED, 1.0, _only(levels - 1, levels, scales)),
        Term(View.SAMPLED, PREFIX_WEIGHT, _around(scales, levels)),
    )


def _inverted(scales: int, levels: int) -> Supervision:
    return tuple(Term(term.view, term.weight, tuple(row[::-1] for row in term.levels)) for term in _v5(scales, levels))


def _mrl(scales: int, levels: int) -> Supervision:
    fine = _only(levels - 1, levels, scales)
    drawn = prefix_probabilities(scales)
    prefixes = (Term(j + 1, PREFIX_WEIGHT * drawn[j], fine) for j in range(scales))
    return (Term(View.DROPPED, 1.0, fine), *prefixes)


def _no_prefix(scales: int, levels: int) -> Supervision:
    return (
        Term(View.DROPPED, 1.0, _only(levels - 1, levels, scales)),
        Term(scales, PREFIX_WEIGHT, _only(0, levels, scales)),
    )


def _uniform(scales: int, levels: int) -> Supervision:
    return tuple(
        Term(view, weight / levels, _only(level, levels, scales))
        for level in range(levels)
        for view, weight in ((View.DROPPED, 1.0), (View.SAMPLED, PREFIX_WEIGHT))
    )


def prefix_probabilities(scales: int) -> tuple[float, ...]:
    """Spell out P(j) for any number of blocks: the published 0.4, 0.3, 0.2, 0.1 are J, J-1, ..., 1 over their sum."""
    return tuple((scales - j) / (scales * (scales + 1) / 2) for j in range(scales))


def keep_probabilities(scales: int) -> tuple[float, ...]:
    """Spell out the keep probabilities for any number of blocks, interpolating the published four."""
    if scales == 1:
        return KEEP[:1]
    places = (j * (len(KEEP) - 1) / (scales - 1) for j in range(scales))
    return tuple(sum(max(0.0, 1 - abs(at - place)) * keep for at, keep in enumerate(KEEP)) for place in places)


@dataclass(frozen=True)
class Method:
    """A training method: what it supervises, and the settings it is trained with unless told otherwise.

    A closed form has no settings and no seed: whatever seeds are asked for, it makes one head. A method that `chooses`
    has its head and epochs chosen by the data (`heads/choosing.py`) where neither is given.
    """

    name: str
    about: str
    supervise: Callable[[int, int], Supervision] | None
    closed_form: bool = False
    chooses: bool = False
    head: str = "paper"
    epochs: int = 5
    batch_size: int = 24
    lr: float = 1e-4
    schedule: str = "constant"
    settings: dict[str, float] = field(default_factory=dict)


_JOINT = Method(
    "joint",
    "every prefix learns every level: supervised contrast and class proxies",
    None,
    chooses=True,
    head="mlp",
    epochs=6,
    batch_size=128,
    lr=2e-3,
    schedule="one-cycle",
    settings={
        "temperature": 0.1,
        "proxy_temperature": 0.08,
        "proxy_weight": 4.0,
        "coarse_weight": 0.15,
        "near_pairs": 0.25,
    },
)


def _joint(name: str, about: str, **settings: float) -> Method:
    return replace(_JOINT, name=name, about=about, chooses=False, settings={**_JOINT.settings, **settings})


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("v5", "short prefixes learn coarse labels, the full vector the finest", _v5),
        Method("mrl", "every prefix learns the finest labels", _mrl),
        Method("inverted", "v5 with the levels reversed", _inverted),
        Method("no-prefix", "the full vector alone, coarsest labels as a regulariser", _no_prefix),
        Method("uniform", "every prefix learns all levels equally", _uniform),
        Method("lda", "closed form: shrunk discriminants of all levels", None, closed_form=True, head="linear"),
        Method("pca", "closed form: principal components", None, closed_form=True, head="linear"),
        Method("features", "the features cut short", None, closed_form=True, head="linear"),
        _JOINT,
        _joint("joint-finest", "joint on the finest level alone", finest_only=1.0),
        _joint("joint-contrast", "joint without class proxies", proxy_weight=0.0),
    )
}
"""The methods by name."""

TRAINER = 6
"""Goes into every run's identity: what was trained by other defaults or another trainer is another run."""


def method_named(name: str) -> Method:
    """Look a method up.

    :raises HeadsError: if there is none of that name.
    """
    if name not in METHODS:
        raise HeadsError(f"unknown method {name!r}", f"use one of {', '.join(METHODS)}")
    return METHODS[name]


def is_closed_form(name: str) -> bool:
    """Whether a method trains nothing, and so has no seed.

    :raises HeadsError: if there is no such method.
    """
    return method_named(name).closed_form


def head_of(name: str, head: str | None = None) -> str:
    """Say which preset a method uses: `head`, by default its own; a closed form always its own.

    :raises HeadsError: if there is no such method.
    """
    row = method_named(name)
    return row.head if head is None or row.closed_form else head


def is_chosen(name: str, head: str | None, epochs: int | None) -> bool:
    """Whether the data choose a method's head and epochs: where neither is given.

    :raises HeadsError: if there is no such method.
    """
    return method_named(name).chooses and head is None and epochs is None


def is_whole(value: Any) -> bool:
    """Whether a setting is a whole number, of Python or numpy."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def hyperparameters(
    method: str,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    schedule: str | None = None,
) -> dict[str, Any]:
    """Spell out what `fit` would train with; a run's identity is made of it.

    :raises HeadsError: if the method is unknown or a value cannot be used.
    """
    row = method_named(method)
    if row.closed_form:
        return {"trainer": TRAINER, "epochs": 0, "batch_size": 0, "lr": 0.0, "schedule": "none"}
    chosen: dict[str, Any] = {
        "trainer": TRAINER,
        "epochs": row.epochs if epochs is None else epochs,
        "batch_size": row.batch_size if batch_size is None else batch_size,
        "lr": row.lr if lr is None else lr,
        "schedule": row.schedule if schedule is None else schedule,
    }
    for name, least in (("epochs", 1), ("batch_size", 2)):
        if not is_whole(chosen[name]) or chosen[name] < least:
            raise HeadsError(f"{name} is {chosen[name]!r}", f"use a whole number, {least} or more")
        chosen[name] = int(chosen[name])
    if not isinstance(chosen["lr"], Real) or not 0 < float(chosen["lr"]) < float("inf"):
        raise HeadsError(f"lr is {chosen['lr']!r}", "use a positive number such as 1e-4")
    if chosen["schedule"] not in SCHEDULES:
        raise HeadsError(f"unknown schedule {chosen['schedule']!r}", f"use one of {', '.join(SCHEDULES)}")
    return {**chosen, **row.settings}
