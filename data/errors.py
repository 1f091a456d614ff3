"""The error of this package: one line says what is wrong, one line says what to do.

A bare ``ValueError`` would leave the remedy to whoever prints it. Values quoted in a message are shortened and escaped,
so that a message stays one line whatever a file holds.
"""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 5
"""How many offending values or rows a message names before it says only how many more there are."""


class DataError(ValueError):
    """Bad input: ``str(error)`` is one line with the fault, ``error.remedy`` one line with what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Say what is wrong and what to do; line breaks inside either become spaces."""
        self.problem = " ".join(problem.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(self.problem, self.remedy)

    def __str__(self) -> str:
        return self.problem


def shortened(value: object, limit: int = 300) -> str:
    """Return `value` as text, cut after `limit` characters."""
    text = str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def quoted(value: object, limit: int = 60) -> str:
    """Return `value` as one short quoted line: escapes kept, cut after `limit` characters."""
    return repr(shortened(value, limit))


def listed(values: Iterable[object], total: int | None = None) -> str:
    """Join the first few `values` with commas and say how many of `total` were left out."""
    values = list(values)
    total = len(values) if total is None else total
    shown = ", ".join(str(value) for value in values[:SHOWN])
    return shown if total <= SHOWN else f"{shown} and {total - SHOWN:,} more"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return number and noun in agreement: ``1 row``, ``2,000 rows``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
