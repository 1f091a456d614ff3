"""What a stage raises when it cannot go on, in the same form as the three packages below it."""

from __future__ import annotations


class PipelineError(ValueError):
    """A stage cannot go on; `str()` says what is wrong in one line, `remedy` what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy
