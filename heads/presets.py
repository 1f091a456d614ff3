"""The heads one can ask for by name, and what such a head is made of: every tensor, its shape, how often it is used.

A preset is a row of a table; `HeadShape` is a row with the numbers filled in that the data decide (length of a feature,
classes a level). All parameters of a head lie in one flat vector, in the order of `HeadShape.tensors`: the optimiser
and the gradient norm then are one operation each instead of one a tensor, which is what makes a step cheap. The price
is that a tensor is a view at an offset; checkpoints store the tensors by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from heads.errors import HeadsError


@dataclass(frozen=True)
class Preset:
    """A head without its data: `width` 0 means that of a feature, `transformer` False means one linear map.

    `mlp` is the width of the hidden layer beside a linear map, 0 for none. `from_lda` heads see centred features, and
    their linear map begins at `lda`.
    """

    name: str
    transformer: bool
    width: int = 0
    ffn_ratio: int = 0
    shared: bool = False
    scales: int = 4
    scale_dim: int = 64
    dropout: float = 0.1
    mlp: int = 0
    from_lda: bool = False


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("paper", transformer=True, width=256, ffn_ratio=2),
        Preset("wide", transformer=True, width=256, ffn_ratio=4),
        Preset("reference", transformer=True, width=0, ffn_ratio=4, shared=True),
        Preset("linear", transformer=False, dropout=0.0),
        Preset("linear-lda", transformer=False, dropout=0.0, from_lda=True),
        Preset("mlp", transformer=False, mlp=2048, from_lda=True),
    )
}
"""The presets by name."""


def preset(name: str) -> Preset:
    """Look a preset up.

    :raises HeadsError: if there is none of that name.
    """
    if name not in PRESETS:
        raise HeadsError(f"unknown head preset {name!r}", f"use one of {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class TensorSlot:
    """One parameter tensor: place and size in the flat vector, fan-in (0: a norm's), uses in a forward pass."""

    name: str
    shape: tuple[int, ...]
    offset: int
    fan_in: int
    uses: int
    size: int


@dataclass(frozen=True)
class HeadShape:
    """A head's architecture with the numbers of its data.

    `inputs` is the length H of a feature; `classes` are the class counts per level, coarsest first; `mlp` is the width
    of the hidden layer beside a linear map. With a `proxy_temperature`, a level's classifier is the cosine to one
    vector a class (its proxy), divided by that, instead of LayerNorm + Linear.

    What follows from these is worked out once: the length `dim` of the full embedding; the transformer `blocks` with
    weights of their own; the width `hidden` of a hidden layer, and the number `hidden_layers` that a row passes, each
    with dropout; all `tensors` in the order of the flat vector, whose length is the number of trained `parameters`.
    """

    inputs: int
    classes: tuple[int, ...]
    transformer: bool
    width: int
    ffn_ratio: int
    shared: bool
    scales: int
    scale_dim: int
    dropout: float
    proxy_temperature: float | None = None
    mlp: int = 0
    dim: int = field(init=False, compare=False, repr=False)
    blocks: int = field(init=False, compare=False, repr=False)
    hidden: int = field(init=False, compare=False, repr=False)
    hidden_layers: int = field(init=False, compare=False, repr=False)
    tensors: tuple[TensorSlot, ...] = field(init=False, compare=False, repr=False)
    parameters: int = field(init=False, compare=False, repr=False)

    @classmethod
    def of(
        cls, row: Preset, inputs: int, classes: tuple[int, ...], *, proxy_temperature: float | None = None
    ) -> HeadShape:
        """Fill in what the data decide."""
        return cls(
            inputs=inputs,
            classes=classes,
            transformer=row.transformer,
            width=row.width or inputs,
            ffn_ratio=row.ffn_ratio,
            shared=row.shared,
            scales=row.scales,
            scale_dim=row.scale_dim,
            dropout=row.dropout,
            proxy_temperature=proxy_temperature,
            mlp=row.mlp,
        )

    def __post_init__(self) -> None:
        hidden_layers = self.scales if self.transformer else int(self.mlp > 0)
        for name, value in (
            ("dim", self.scales * self.scale_dim),
            ("blocks", (1 if self.shared else self.scales) if self.transformer else 0),
            ("hidden", self.mlp or self.width * self.ffn_ratio),
            ("hidden_layers", hidden_layers),
        ):
            object.__setattr__(self, name, value)
        slots: list[TensorSlot] = []
        offset = 0
        for name, shape, fan_in, uses in self._described():
            slots.append(TensorSlot(name, shape, offset, fan_in, uses, prod(shape)))
            offset += slots[-1].size
        object.__setattr__(self, "tensors", tuple(slots))
        object.__setattr__(self, "parameters", offset)

    def residual(self, scale: int) -> float:
        """Weight of the projected input that is added after the block of a scale, 0-based."""
        return 0.1 / (1 + 0.3 * scale)

    def _described(self) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        if not self.transformer:
            yield from _linear("input", self.dim, self.inputs)
            if self.mlp:
                yield from _linear("mlp.expand", self.mlp, self.inputs)
                yield from _linear("mlp.contract", self.dim, self.mlp)
        else:
            yield from _linear("input", self.width, self.inputs)
            for block in range(self.blocks):
                yield from self._block(f"block.{block}")
            for scale in range(self.scales):
                yield from _norm(f"scale.{scale}.norm", self.width)
                yield from _linear(f"scale.{scale}.linear", self.scale_dim, self.width)
        for level, count in enumerate(self.classes):
            if self.proxy_temperature is not None:
                yield f"proxies.{level}", (count, self.dim), self.dim, 1
            else:
                yield from _norm(f"classifier.{level}.norm", self.dim)
                yield from _linear(f"classifier.{level}.linear", count, self.dim)

    def _block(self, name: str) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        uses = self.scales // self.blocks
        yield from _norm(f"{name}.norm1", self.width, uses)
        yield from _linear(f"{name}.value", self.width, self.width, uses)
        yield from _linear(f"{name}.output", self.width, self.width, uses)
        yield from _norm(f"{name}.norm2", self.width, uses)
        yield from _linear(f"{name}.expand", self.hidden, self.width, uses)
        yield from _linear(f"{name}.contract", self.width, self.hidden, uses)


def _linear(name: str, outputs: int, inputs: int, uses: int = 1) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    yield f"{name}.weight", (outputs, inputs), inputs, uses
    yield f"{name}.bias", (outputs,), inputs, uses


def _norm(name: str, width: int, uses: int = 1) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    yield f"{name}.weight", (width,), 0, uses
    yield f"{name}.bias", (width,), 0, uses
