"""Heads that need no training steps: `lda`, `pca` and `features`, linear maps read off the data's second moments.

`lda` (Fisher's discriminants over a hierarchy): directions by generalised eigenvalue of the between-class scatter,
summed over levels, against the shrunk within-class scatter; for one level these are scikit-learn's (solver "eigen", the
same shrinkage). A direction weighs its eigenvalue^0.15. Sorted by eigenvalue, so that prefixes are nested; where there
are fewer discriminants than dimensions, principal components of what they leave follow. How much to shrink is chosen by
neighbours on validation rows, or by cross-validation on training rows, where a fold's scatter is a subtraction. `pca`:
principal components. `features`: the features cut short.

All of them know of the data are its second moments by class (`Scatter`), summed in one pass: a [H, H] matrix and a
vector per class, whatever the number of rows. Cost: 2 n H^2 floating-point operations in float64 (a million rows of
1,024 features: 2 TFLOPs, some 15 s on two cores), and an eigenproblem of size H per shrinkage tried: 30 ms at H = 384,
minutes at 4,096.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from heads.head import FractalHead, Labelling
from heads.network import named
from heads.presets import HeadShape, preset
from heads.training import validation
from heads.training.inputs import Inputs, fixed_sample
from heads.training.scatter import Scatter, scatter_of

SHRINKAGES = (0.1, 0.3, 0.7, 0.9)
POWER = 0.15
TEMPERATURES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)

_FOLDS = 3
_ONE_WAY = 0.5  # mean cosine of two rows above which features mostly point one way
_BLOCK = 4096  # rows added up at a time
_NO_VARIANCE, _ROUNDED = 1e-12, 1e-14  # of the variance of all dimensions, and of the squares that it is the rest of
_GALLERY, _QUERIES = 4000, 500  # rows that a shrinkage is judged on


@dataclass(frozen=True)
class LinearMap:
    """Embedding of a feature x: (x - centre) * scale, times `weight`^T.

    `weight` float32 [D, H], `centre` float32 [H]; `scale` brings centred features to length 1 on average (root mean
    square). `chosen` is what the data decided, and `reason` how.
    """

    weight: Tensor
    centre: Tensor
    scale: float
    chosen: dict[str, Any]
    reason: str

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings, not normalised, of unit features [n, H]."""
        return standardised(features, self.centre, self.scale) @ self.weight.T


def standardised(features: Tensor, centre: Tensor, scale: float) -> Tensor:
    """Centre unit features and bring them to length 1 on average, float32 [n, H]."""
    return (features - centre) * scale


def common_direction(features: Tensor) -> tuple[Tensor, float] | None:
    """The centre, float32 [H], and the scale of unit rows [n, H] that mostly point one way; None of others.

    The squared length of the mean is the mean cosine of two rows, and what is left of 1 the mean squared length of
    centred rows.
    """
    blocks = (features[start : start + _BLOCK] for start in range(0, len(features), _BLOCK))
    mean = torch.stack([block.double().sum(0) for block in blocks]).sum(0) / len(features)
    cosine = float(mean.square().sum())
    return (mean.float(), max(1 - cosine, 1e-12) ** -0.5) if cosine > _ONE_WAY else None


def linear_map(method: str, inputs: Inputs, dim: int) -> LinearMap:
    """Read a linear map off the training rows.

    :param method: "lda", "pca" or "features".
    :param dim: length D of the embedding; where H is smaller the rest is zeros.
    """
    if method == "features":
        width = inputs.features.shape[1]
        centre = torch.zeros(width, device=inputs.features.device)
        return LinearMap(torch.eye(dim, width, device=centre.device), centre, 1.0, {}, "the features cut short")
    whole = inputs.scatter or scatter_of(inputs.features, inputs.labels, inputs.classes)
    if method == "pca":
        return _mapped(whole, _principal(whole.covariance, dim, _rounding(whole)), dim, {}, "principal components")
    if inputs.shrinkage is None:
        shrinkage, scores, reason = _chosen_shrinkage(inputs, whole, dim)
    else:
        shrinkage, scores, reason = inputs.shrinkage, {}, f"shrinkage {inputs.shrinkage:g}"
    chosen = {"shrinkage": shrinkage, "scores": {f"{one:g}": score for one, score in scores.items()}}
    return _mapped(whole, discriminants(whole, shrinkage, dim), dim, chosen, reason)


def with_shrinkage(inputs: Inputs) -> Inputs:
    """Settle how much `lda` shrinks, once for all that is made of these rows and of parts of them; keep their sums."""
    row = preset("linear")
    whole = scatter_of(inputs.features, inputs.labels, inputs.classes)
    chosen = _chosen_shrinkage(inputs, whole, row.scales * row.scale_dim)[0]
    return replace(inputs, shrinkage=chosen, scatter=whole)


def discriminants(scatter: Scatter, shrinkage: float, dim: int) -> Tensor:
    """Directions of `lda`, weighted, by eigenvalue, then principal components of the rest: float64 [H, <= dim]."""
    covariance, width = scatter.covariance, len(scatter.covariance)
    within, least = _shrunk(scatter.within, shrinkage), _rounding(scatter)
    between = _shrunk(scatter.between, shrinkage)
    count = min(int((scatter.separations > least).sum()), width, dim)
    if count < 1:
        return _principal(covariance, dim, least)
    factor = torch.linalg.cholesky(within)  # the generalised problem as an ordinary one
    left = torch.linalg.solve_triangular(factor, between, upper=False)
    values, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(factor, left.mT, upper=False))
    directions = torch.linalg.solve_triangular(factor.mT, vectors[:, -count:].flip(1), upper=True)
    top = values[-1].clamp(min=1e-12)
    weighted = _signed(directions * _weight(values[-count:].flip(0) / top))
    rest = min(dim, width) - count
    if not rest:
        return weighted
    basis, _ = torch.linalg.qr(directions)
    onto = torch.eye(width, dtype=basis.dtype, device=basis.device) - basis @ basis.mT
    more = _principal(onto @ covariance @ onto, rest, least)
    spread = _variances(more, within).sqrt()
    share = _variances(more, between) / spread.square() / top
    return torch.cat([weighted, more / spread * _weight(share)], 1)


def closed_form_head(method: str, inputs: Inputs) -> tuple[FractalHead, LinearMap]:
    """Make the head of a closed-form method; each class's proxy is the mean of its rows' embeddings."""
    row = preset("linear")
    dim = row.scales * row.scale_dim
    found = linear_map(method, inputs, dim)
    embeddings = functional.normalize(found.embed(inputs.features), dim=1)
    temperature = proxy_temperature(embeddings, inputs.labels, inputs.classes)
    shape = HeadShape.of(row, inputs.features.shape[1], inputs.classes, proxy_temperature=temperature)
    tensors = {"input.weight": found.weight} | class_proxies(embeddings, inputs)
    weights = torch.zeros(shape.parameters)
    for name, place in named(weights, shape).items():
        if name in tensors:
            place.copy_(tensors[name])
    # a coarse class is many clusters, which no one mean stands for: it takes the sum of its children's probabilities
    supervised = tuple(not inputs.complete or level == len(inputs.classes) - 1 for level in range(len(inputs.classes)))
    labelling = Labelling(inputs.parents, supervised, inputs.names)
    head = FractalHead(
        shape, weights, labelling, method=method, preset=row.name, centre=found.centre.cpu(), scale=found.scale
    )
    return head, found


def class_proxies(embeddings: Tensor, inputs: Inputs) -> dict[str, Tensor]:
    """Proxies by tensor name: the mean unit embedding of each class, [C, D], normalised; zeros where it has no rows."""
    return {
        f"proxies.{level}": functional.normalize(_summed(embeddings, inputs.labels[:, level], count), dim=1)
        for level, count in enumerate(inputs.classes)
    }


def _summed(embeddings: Tensor, own: Tensor, count: int) -> Tensor:
    """Sum of each class's embeddings, [C, D]; `own` int64 [n] is each row's class, -1 for none."""
    sums = torch.zeros(count, embeddings.shape[1], device=embeddings.device)
    return sums.index_add_(0, own[own >= 0], embeddings[own >= 0])


def proxy_temperature(embeddings: Tensor, labels: Tensor, classes: Sequence[int]) -> float:
    """Temperature at which the cosine to class means, a row's own left out, predicts best: the least mean loss."""
    rows = fixed_sample(len(embeddings)).to(embeddings.device)
    totals = dict.fromkeys(TEMPERATURES, 0.0)
    for level, count in enumerate(classes):
        own = labels[:, level]
        sizes = own[own >= 0].bincount(minlength=count)
        asked = rows[(own[rows] >= 0) & (sizes[own[rows].clamp(min=0)] > 1)]
        if not len(asked):
            continue
        sums = _summed(embeddings, own, count)
        cosines = embeddings[asked] @ functional.normalize(sums, dim=1).T
        without = functional.normalize(sums[own[asked]] - embeddings[asked], dim=1)
        cosines[torch.arange(len(asked)), own[asked]] = (without * embeddings[asked]).sum(1)
        for temperature in TEMPERATURES:
            totals[temperature] += float(functional.cross_entropy(cosines / temperature, own[asked]))
    return min(totals, key=lambda temperature: totals[temperature])


def _chosen_shrinkage(inputs: Inputs, whole: Scatter, dim: int) -> tuple[float, dict[float, float], str]:
    """Shrinkage with the best neighbours, mean over prefixes and levels; of equal ones the larger."""
    scores = dict.fromkeys(SHRINKAGES, 0.0)
    held, held_labels = inputs.validation, inputs.validation_labels
    dims = sorted({max(1, dim // 4), dim})

    def judge(part: Scatter, gallery: Tensor, queries: Tensor, asked: Tensor, voters: int, times: int) -> None:
        """Add each shrinkage's mean accuracy, one of so many, by queries [q, H] in the training rows `gallery`."""
        for shrinkage in SHRINKAGES:
            found = _mapped(part, discriminants(part, shrinkage, dim), dim, {}, "")
            among, labels = found.embed(inputs.features[gallery]), inputs.labels[gallery]
            accuracy = validation.gallery_accuracies(among, labels, found.embed(queries), asked, dims, voters)
            scores[shrinkage] += float(accuracy.nanmean()) / times

    if held is not None and held_labels is not None and len(held) >= validation.FEWEST:
        gallery, queries = fixed_sample(len(inputs.features), _GALLERY), fixed_sample(len(held), _QUERIES)
        judge(whole, gallery, held[queries], held_labels[queries], validation.NEIGHBOURS, 1)
        reason = f"on {len(queries):,} validation rows"
    else:
        splits = validation.folds_of(inputs.features, inputs.labels, _FOLDS)
        for split in splits:
            out = split.left_out
            part = whole.minus(scatter_of(inputs.features[out], inputs.labels[out], inputs.classes))
            queries = out[fixed_sample(len(out), _QUERIES)]
            gallery = split.kept[fixed_sample(len(split.kept), _GALLERY)]
            judge(part, gallery, inputs.features[queries], inputs.labels[queries], split.voters, len(splits))
        reason = f"by {_FOLDS}-fold cross-validation on {len(inputs.features):,} training rows"
    best = max(SHRINKAGES, key=lambda one: (round(scores[one], 6), one))
    return best, scores, f"shrinkage {best:g} {reason}"


def _mapped(scatter: Scatter, directions: Tensor, dim: int, chosen: dict[str, Any], reason: str) -> LinearMap:
    """Scale directions [H, <= dim] such that embeddings are of length 1 on average, and fill up with zeros."""
    covariance = scatter.covariance
    spread = max(float(covariance.trace()), 1e-24)
    length = max(float(_variances(directions, covariance).sum()), 1e-24)
    weight = directions.new_zeros(dim, len(covariance))
    weight[: directions.shape[1]] = directions.mT * (spread / length) ** 0.5
    return LinearMap(weight.float(), scatter.mean.float(), spread**-0.5, chosen, reason)


def _rounding(scatter: Scatter) -> float:
    """The variance that rounding leaves along directions in which no row differs: a basis of these is chance."""
    return _NO_VARIANCE * float(scatter.covariance.trace()) + _ROUNDED * float(scatter.moment.trace()) / scatter.rows


def _variances(directions: Tensor, covariance: Tensor) -> Tensor:
    """Variance along each direction."""
    return (directions * (covariance @ directions)).sum(0)


def _shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    """Shrink towards the same variance in every direction; never singular."""
    level = float(covariance.trace()) / len(covariance)
    ridge = torch.full_like(covariance[0], shrinkage * level + 1e-12)
    return (1 - shrinkage) * covariance + ridge.diag()


def _principal(covariance: Tensor, count: int, least: float) -> Tensor:
    """The first principal components, [H, <= count], along which the variance is more than `least`."""
    values, vectors = torch.linalg.eigh(covariance)
    varied = int((values > least).sum())
    return _signed(vectors[:, len(values) - min(count, varied) :].flip(1))


def _signed(directions: Tensor) -> Tensor:
    """Turn each direction such that its largest component is positive: the same on every machine."""
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return directions * torch.where(largest < 0, -1.0, 1.0)


def _weight(share: Tensor) -> Tensor:
    return share.clamp(min=1e-9) ** POWER
