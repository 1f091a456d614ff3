"""What `embed_missing` says while it runs and when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_PROGRESS_SECONDS = 0.1
_RATE_SECONDS = 0.5
STAGES = ("loading", "compiling", "tokenizing", "computing", "writing")


@dataclass(frozen=True)
class EmbedProgress:
    """Texts done of `total` (0 where the number is not known), computed texts per second, and what is going on."""

    done: int
    total: int
    texts_per_second: float
    stage: str


Progress = Callable[[EmbedProgress], None]


class Meter:
    """Counts computed texts and tells `progress`, at most ten times per second; `reused` gives those done otherwise."""

    def __init__(self, total: int, progress: Progress | None, reused: Callable[[], int]) -> None:
        """Begin at nothing; of `total` texts, 0 where the number is not known."""
        self.total = total
        self._progress, self._reused = progress, reused
        self._computed, self._reported = 0, 0.0
        self._began: float | None = None

    def count(self, texts: int, stage: str) -> None:
        """Note a batch of computed texts; 0 says that a stage begins, which is told at once."""
        now = time.perf_counter()
        if texts and self._began is None:
            self._began = now
        self._computed += texts
        if self._progress is None or (texts and now - self._reported < _PROGRESS_SECONDS):
            return
        self._reported = now
        since = 0.0 if self._began is None else now - self._began
        rate = self._computed / since if since >= _RATE_SECONDS else 0.0  # the first batch alone gives no rate
        self._progress(EmbedProgress(self._reused() + self._computed, self.total, rate, stage))


@dataclass(frozen=True)
class EmbeddedLayer:
    """One layer's features: absolute layer index, fingerprint (hex) and store folder."""

    layer: int
    fingerprint: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """Of `texts`, `computed` distinct ones went through the backbone.

    `tokens` are those of the computed texts, `nodes` the positions computed for them (fewer where texts share their
    beginnings), `padding` the positions computed for nothing. `seconds` is the whole call; `stages` are seconds in each
    part, which overlap, so that they may add up to more. `notes` are choices made unasked, a line each.
    """

    texts: int
    computed: int
    tokens: int = 0
    nodes: int = 0
    padding: int = 0
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    dtype: str
    device: str
    stores: tuple[EmbeddedLayer, ...]
    notes: tuple[str, ...]

    @property
    def reused(self) -> int:
        """Texts that were stored before, or repeat another."""
        return self.texts - self.computed


@dataclass
class Tally:
    """What one process has done so far; processes' tallies add up."""

    computed: int = 0
    tokens: int = 0
    nodes: int = 0
    padding: int = 0
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    notes: tuple[str, ...] = ()

    def add(self, other: Tally) -> None:
        """Add another process's tally; of equal notes one is kept."""
        self.computed += other.computed
        self.tokens += other.tokens
        self.nodes += other.nodes
        self.padding += other.padding
        for stage, seconds in other.stages.items():
            self.stages[stage] += seconds
        self.notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
