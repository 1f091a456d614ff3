"""What `embed_missing` says while it runs and when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

STAGES = ("loading", "compiling", "tokenizing", "computing", "writing")


@dataclass(frozen=True)
class EmbedProgress:
    """Texts done of `total` (0 where the number is not known), computed texts per second, and what is going on."""

    done: int
    total: int
    texts_per_second: float
    stage: str


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
