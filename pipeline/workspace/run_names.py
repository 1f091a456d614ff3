"""What a run is called beside others: its method, and whatever tells it from other runs of that method.

Runs are grouped over seeds by this name, so two learning rates of one method are two rows, never one mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def names(records: Sequence[Record]) -> list[str]:
    """Names of runs or scores, such as `v5`, or `v5 (head linear)` where v5 stands there with another head too."""
    return [_name(record, [other for other in records if other["method"] == record["method"]]) for record in records]


def _facts(record: Record) -> dict[str, Any]:
    return {"head": record["head"], "layer": record["layer"], **record["hyperparameters"]}


def _name(record: Record, alike: Sequence[Record]) -> str:
    varying = [
        f"{fact} {value}" for fact, value in _facts(record).items() if any(_facts(o).get(fact) != value for o in alike)
    ]
    return f"{record['method']} ({', '.join(varying)})" if varying else str(record["method"])
