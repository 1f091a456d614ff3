"""What this package raises for bad input, in the same form as its two neighbours."""

from __future__ import annotations


class HeadsError(ValueError):
    """Input that heads cannot work with; `str()` says what is wrong in one line, `remedy` what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy
