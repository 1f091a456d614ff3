"""Everything random of a fit, drawn from streams that belong to one seed alone.

The idea: nothing that is drawn depends on the weights, so the draws of many steps are made at once, on the device, and
a step only reads its slice. Each seed has a stream for each purpose, all derived from the seed here and nowhere else,
so that what a seed draws depends neither on the seeds beside it nor on how many steps are drawn at a time. Python's,
numpy's and torch's global generators are neither read nor changed.

A positive is drawn in constant time: rows sorted by class, an offset of 1 .. count-1 from the anchor's own place,
wrapped around its class; so every other row of the class is equally likely and the anchor itself impossible.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from heads.errors import HeadsError
from heads.methods import is_whole

_PURPOSES = ("weights", "order", "positives", "prefixes", "blocks", "dropout")
_LANES = 1 << 16  # dropout compares 16 random bits with a threshold


class Streams(dict[str, torch.Generator]):
    """The random streams of one seed: a generator per purpose, on the device where it is used."""

    def __init__(self, seed: int, device: torch.device) -> None:
        """Derive the streams.

        :raises HeadsError: if the seed is negative or no whole number.
        """
        if not is_whole(seed) or seed < 0:
            raise HeadsError(f"seed {seed!r} is negative or no whole number", "use 0 or more")
        words = np.random.SeedSequence(seed).generate_state(len(_PURPOSES), np.uint64)
        super().__init__()
        for purpose, word in zip(_PURPOSES, words, strict=True):
            where = torch.device("cpu") if purpose == "weights" else device
            self[purpose] = torch.Generator(where).manual_seed(int(word >> np.uint64(1)))


class Classes:
    """Rows by class on every level: who can be a positive of whom.

    `anchors` are the rows whose deepest known class holds another row; the others stay what is compared with, no more.
    `complete` says whether every row has a label on every level.
    """

    def __init__(self, labels: Tensor) -> None:
        """Sort the rows of int64 [n, L] labels by class, a level at a time; -1 is a label that is not known.

        :raises HeadsError: if no two rows share a finest class.
        """
        n, levels = labels.shape
        self._depth = (labels >= 0).sum(1) - 1
        self.complete = bool((self._depth == levels - 1).all())
        self._sorted = torch.empty(levels, n, dtype=torch.int64, device=labels.device)
        self._start, self._rank = torch.empty_like(self._sorted), torch.empty_like(self._sorted)
        self._count = torch.empty_like(self._sorted)
        for level in range(levels):
            column = labels[:, level].contiguous()
            if not self.complete:  # rows without a label stand together behind all classes, and nobody asks for them
                column = torch.where(column < 0, column.max() + 1, column)
            order = column.argsort(stable=True)
            counts = column.bincount()
            starts = counts.cumsum(0) - counts
            self._sorted[level], self._start[level], self._count[level] = order, starts[column], counts[column]
            self._rank[level][order] = torch.arange(n, device=labels.device) - starts[column[order]]
        self.anchors = (self._count.gather(0, self._depth[None])[0] > 1).nonzero()[:, 0]
        if len(self.anchors) < 2:
            raise HeadsError(
                f"no two of the {n} training rows share a label of the finest level",
                "give at least two rows of some finest label, or drop the finest level",
            )

    def partners(self, rows: Tensor, levels: Tensor, uniform: Tensor) -> Tensor:
        """Pick another row of the same class for each row; where it has no label at the level, of its deepest class.

        :param rows: int64, any shape.
        :param levels: int64, the level whose class counts, same shape.
        :param uniform: float32 in [0, 1), same shape.
        """
        if not self.complete:
            levels = levels.minimum(self._depth[rows])
        others = self._count[levels, rows] - 1
        step = 1 + (uniform * others).long().minimum(others - 1)
        place = (self._rank[levels, rows] + step) % (others + 1)
        return self._sorted[levels, self._start[levels, rows] + place]


class Draws(NamedTuple):
    """What N steps draw, for S seeds and batches of B.

    `anchors` int64 [N, S, B]; `uniform` float32 [N, S, K, B] for K positives an anchor; `prefixes` int64 [N, S, B] in
    0..J-1; `kept` bool [N, S, B, J], no row all False; `dropout` float32 [N, S, scales, R, F] multipliers 0 or
    1 / keep, or None.
    """

    anchors: Tensor
    uniform: Tensor
    prefixes: Tensor
    kept: Tensor
    dropout: Tensor | None


class DrawShape(NamedTuple):
    """How much a step draws: batch B, positives K an anchor, probabilities a block, dropout [scales, R, F] and rate."""

    batch: int
    positives: int
    prefix_probabilities: tuple[float, ...]
    keep_probabilities: tuple[float, ...]
    dropout: tuple[int, int, int] | None
    rate: float


class Sampler:
    """Draws for several seeds side by side."""

    def __init__(self, streams: list[Streams], anchors: Tensor, shape: DrawShape) -> None:
        """Prepare to draw batches of the anchors, int64 [n]."""
        self._streams, self._anchors, self.shape = streams, anchors, shape
        device = anchors.device
        self._thresholds = torch.tensor(shape.prefix_probabilities, device=device).cumsum(0)[:-1]
        self._keep = torch.tensor(shape.keep_probabilities, device=device)
        self._orders: list[Tensor] = []

    @property
    def steps(self) -> int:
        """Steps an epoch: the batches that the anchors fill; what is left over differs from epoch to epoch."""
        return len(self._anchors) // self.shape.batch

    def new_epoch(self) -> None:
        """Shuffle the anchors anew."""
        n, device = len(self._anchors), self._anchors.device
        self._orders = [
            self._anchors[torch.randperm(n, generator=one["order"], device=device)] for one in self._streams
        ]

    def draw(self, first: int, steps: int) -> Draws:
        """Draw for `steps` steps of the epoch from step `first` on; each step is drawn once, in order."""
        seeds = [self._draw_one(s, first, steps) for s in range(len(self._streams))]
        dropout = [seed.dropout for seed in seeds if seed.dropout is not None]
        return Draws(
            _side_by_side([seed.anchors for seed in seeds]),
            _side_by_side([seed.uniform for seed in seeds]),
            _side_by_side([seed.prefixes for seed in seeds]),
            _side_by_side([seed.kept for seed in seeds]),
            _side_by_side(dropout) if dropout else None,
        )

    def _draw_one(self, s: int, first: int, steps: int) -> Draws:
        shape, stream, device = self.shape, self._streams[s], self._anchors.device
        batch, blocks = shape.batch, len(shape.keep_probabilities)

        def uniform(purpose: str, *size: int) -> Tensor:
            return torch.rand(steps, *size, generator=stream[purpose], device=device)

        anchors = self._orders[s][first * batch : (first + steps) * batch].view(steps, batch)
        prefixes = (uniform("prefixes", batch)[..., None] >= self._thresholds).sum(-1)
        kept = uniform("blocks", batch, blocks) < self._keep
        kept[..., 0] |= ~kept.any(-1)
        return Draws(
            anchors, uniform("positives", shape.positives, batch), prefixes, kept, self._dropout(stream, steps)
        )

    def _dropout(self, stream: Streams, steps: int) -> Tensor | None:
        """Draw multipliers from 16 random bits each, four to a draw of 64: four times cheaper than a float each."""
        shape, device = self.shape, self._anchors.device
        if shape.dropout is None or shape.rate == 0:
            return None
        size = int(np.prod(shape.dropout))
        words = torch.empty(steps, -(-size // 4), dtype=torch.int64, device=device)
        words.random_(-(1 << 63), None, generator=stream["dropout"])
        bits = words.view(torch.int16)[:, :size]
        kept = bits >= round(shape.rate * _LANES) - _LANES // 2
        return (kept * (1 / (1 - shape.rate))).view(steps, *shape.dropout)


def _side_by_side(parts: list[Tensor]) -> Tensor:
    """Stack [N, ...] to [N, S, ...], without a copy for one seed: the dropout of a few steps is megabytes."""
    return parts[0].unsqueeze(1) if len(parts) == 1 else torch.stack(parts, 1)
