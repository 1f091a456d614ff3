"""Matrix products of heads, losses and the optimiser, counted from their shapes.

The unit is a floating-point operation, a multiplication and an addition being two, as in `torch.utils.flop_counter`;
products only, which are what a device's speed is stated in. The tests hold every figure here to that counter, run over
the very code that trains. What it does not count (norms, activations, softmax) is `pipeline.cost.backbone`'s, what
it cannot see (the fused optimiser) is by formula below. The alternative, only ever running the counter, would need the
real batch of every method and size one asks about.
"""

from __future__ import annotations

from dataclasses import dataclass

from heads.methods import Method, Supervision, View
from heads.presets import HeadShape

ADAMW = 15
"""Operations per parameter of AdamW (Loshchilov and Hutter, 2019, algorithm 2): 2 decay, 3 and 4 the two moments (the
square included), 2 their corrections, root, epsilon, quotient and the step itself."""
CLIPPING = 3
"""Operations per parameter of clipping by the gradient's norm: square, sum, scale."""


def head_forward(shape: HeadShape) -> int:
    """Count a text's way through the head, classifiers left out."""
    matrices = (slot for slot in shape.tensors if len(slot.shape) == 2)
    return sum(2 * m.size * m.uses for m in matrices if not m.name.startswith(("classifier", "proxies")))


def head_backward(shape: HeadShape) -> int:
    """Count a text's gradients: by weights and by inputs, but not by the features, which nothing learns from."""
    first = 2 * shape.inputs * (shape.width if shape.transformer else shape.dim + shape.mlp)
    return 2 * head_forward(shape) - first


@dataclass(frozen=True)
class LossCount:
    """Products of a batch's losses, forward, and of their gradients, `backward`.

    `contrast` and `margin` are the cosines that each looks at, `classification` the classifiers on all anchors of the
    batch. `joint` has no margin.
    """

    contrast: int
    margin: int
    classification: int
    backward: int

    @property
    def forward(self) -> int:
        """All but the gradients."""
        return self.contrast + self.margin + self.classification


@dataclass(frozen=True)
class StepCount:
    """Operations of one training step on stored features.

    `rows` go through the head, each distinct text of the step once; `terms` are the losses' (contrast, margin,
    classification each). `optimiser` is clipping and AdamW on all parameters, elementwise.
    """

    rows: int
    terms: int
    head_forward: int
    head_backward: int
    losses: LossCount
    optimiser: int

    @property
    def total(self) -> int:
        """Everything."""
        return self.head_forward + self.head_backward + self.losses.forward + self.losses.backward + self.optimiser


def step(method: Method, shape: HeadShape, batch: int) -> StepCount:
    """Count one step of a method at `batch` anchors."""
    terms = None if method.supervise is None else method.supervise(shape.scales, len(shape.classes))
    # terms that draw their positives from the same classes share one
    positives = 1 if terms is None else len({term.positive_levels(shape.scales) for term in terms})
    rows = batch * (1 + positives)
    return StepCount(
        rows=rows,
        terms=1 if terms is None else len(terms),
        head_forward=rows * head_forward(shape),
        head_backward=rows * head_backward(shape),
        losses=_joint_losses(method, shape, 2 * batch) if terms is None else _term_losses(terms, shape, batch),
        optimiser=(ADAMW + CLIPPING) * shape.parameters,
    )


def _term_losses(terms: Supervision, shape: HeadShape, batch: int) -> LossCount:
    cosines = len(terms) * 2 * batch * batch * shape.dim
    classified = sum(
        2 * batch * shape.dim * shape.classes[level] for term in terms for level in _levels(term.view, term.levels)
    )
    return LossCount(cosines, cosines, classified, 2 * (2 * cosines + classified))


def _levels(view: View | int, table: tuple[tuple[float, ...], ...]) -> list[int]:
    """Levels whose classifier a term asks: all that weigh at a prefix it may see."""
    rows = table if view is View.SAMPLED else (table[-1 if view is View.DROPPED else int(view) - 1],)
    return [level for level in range(len(table[0])) if any(row[level] for row in rows)]


def _joint_losses(method: Method, shape: HeadShape, rows: int) -> LossCount:
    contrast = 2 * rows * rows * shape.dim
    compared = shape.classes[-1:] if method.settings.get("finest_only") else shape.classes
    proxies = 2 * rows * shape.dim * sum(compared) if method.settings.get("proxy_weight", 1.0) else 0
    return LossCount(contrast, 0, proxies, 2 * (contrast + proxies))
