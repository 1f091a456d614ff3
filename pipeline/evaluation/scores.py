"""Results as typed records with one JSON form: what was scored, and what each prefix knows of each level.

`to_json` writes the fields of any of these records, `from_json` reads them back and checks every type on the way, so a
file that holds something else is noticed where it is read. Tables, sentences and the page take the records themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from pipeline.workspace.records import typed
from pipeline.workspace.run_names import names

Record = TypeVar("Record")
Interval = tuple[float, float]


def to_json(value: Any) -> Any:
    """A record as JSON values: dataclasses become objects, tuples lists."""
    if dataclasses.is_dataclass(value):
        return {one.name: to_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_json(one) for name, one in value.items()}
    return [to_json(one) for one in value] if isinstance(value, list | tuple) else value


def from_json(kind: type[Record], value: Any) -> Record:
    """The record that JSON values spell.

    :raises TypeError: if a value has another type than its field, is missing or not known.
    """
    read: Record = typed(value, kind, "")
    return read


@dataclass(frozen=True)
class Identity:
    """What was scored: a run's head, or vectors that no training made (`untrained`)."""

    run: str | None
    dataset: str
    backbone: str
    layer: int | None
    method: str
    head: str | None
    seed: int | None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    untrained: bool = False

    @property
    def closed_form(self) -> bool:
        """Whether it is a head that no gradient step made, which is the same whatever the seed."""
        return self.hyperparameters.get("epochs") == 0

    @property
    def paired_seed(self) -> int | None:
        """The seed by which it is paired with others; None for what no seed changes, which is paired with any."""
        return None if self.closed_form else self.seed

    def to_json(self) -> dict[str, Any]:
        """As score records begin; `untrained` only where it is true."""
        spelled: dict[str, Any] = to_json(self)
        return spelled if self.untrained else {name: one for name, one in spelled.items() if name != "untrained"}


def method_names(identities: Sequence[Identity]) -> list[str]:
    """How tables call them: the method, what tells runs of one method apart, and an asterisk if no one trained it."""
    trained, untrained = (
        iter(names([identity.to_json() for identity in identities if identity.untrained == kind]))
        for kind in (False, True)
    )
    return [f"{next(untrained)}*" if identity.untrained else next(trained) for identity in identities]


def by_method(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """The seeds of one name side by side, in the order met."""
    groups: dict[str, list[Score]] = {}
    for name, score in zip(method_names([score.identity for score in scores]), scores, strict=True):
        groups.setdefault(name, []).append(score)
    return groups


@dataclass(frozen=True)
class LevelScore:
    """One prefix on one level; shares. `n`: texts that have a label on the level, which alone are counted.

    `classifier`: accuracy of the head's own classifiers, as paths of the tree; None where the level has none.
    """

    level: int
    accuracy: float
    ci95: Interval
    macro: float
    precision: float
    classifier: float | None
    n: int


@dataclass(frozen=True)
class PrefixScore:
    """One prefix (1 is the shortest) on every level."""

    prefix: int
    dim: int
    levels: tuple[LevelScore, ...]


@dataclass(frozen=True)
class Confused:
    """A class taken for another, how often, and their distance in the tree."""

    truth: str
    predicted: str
    count: int
    distance: int


@dataclass(frozen=True)
class PrefixErrors:
    """The errors of one prefix on the finest level, by distance in the tree.

    `within` stay below the right parent, `across` leave it. `by_distance[d - 1]` counts the errors of distance d.
    `mean_distance` is over errors, None without any; `chance_distance` is what errors would have that fell on any other
    class of the level alike. `explained[l]` is the share of the errors whose ancestors part at level l, so that level
    0's share are the errors that a perfect coarse answer would have prevented; the shares add up to 1.
    """

    dim: int
    level: int
    queries: int
    errors: int
    within: int
    across: int
    by_distance: tuple[int, ...]
    mean_distance: float | None
    chance_distance: float | None
    explained: tuple[float, ...]
    worst: tuple[Confused, ...]


@dataclass(frozen=True)
class Score:
    """One scorable under one protocol. `gallery` and `queries` are counts; `steerability` and its terms are shares.

    `origin`: where the rows of a gallery of the grid come from; `scoring`: version of the way of measuring.
    """

    identity: Identity
    protocol: str
    k: int
    gallery: int
    queries: int
    samples: int
    prefixes: tuple[PrefixScore, ...]
    steerability: float | None
    coarse_gain: float | None
    fine_gain: float | None
    steerability_ci95: Interval | None
    coarse_gain_ci95: Interval | None
    fine_gain_ci95: Interval | None
    smallest_prefix: tuple[int, ...]
    origin: str | None = None
    scoring: int | None = None
    errors: tuple[PrefixErrors, ...] | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        """Lengths of the prefixes, ascending."""
        return tuple(prefix.dim for prefix in self.prefixes)

    def to_json(self) -> dict[str, Any]:
        """The record of `score --json`, which `scores.json` holds too."""
        spelled = {name: one for name, one in to_json(self).items() if name not in _OPTIONAL or one is not None}
        del spelled["identity"]
        return {**self.identity.to_json(), **spelled}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Score:
        """Read what `to_json` wrote; raises as `from_json` does."""
        own = {one.name for one in fields(Identity)}
        identity = {name: value for name, value in record.items() if name in own}
        return from_json(cls, {**{k: v for k, v in record.items() if k not in own}, "identity": identity})


_OPTIONAL = ("origin", "scoring", "errors")
