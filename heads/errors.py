"""The one exception of this package: what is wrong, and what to do about it, a line each."""

from __future__ import annotations


class HeadsError(ValueError):
    """Bad input to a head, its training or its checkpoint.

    `str(error)` is one line naming the offending value; `error.remedy` is one line that says what to do.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy
