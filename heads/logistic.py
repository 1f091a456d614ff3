"""Multinomial logistic regression on the features: the flat classifier that every head is compared with.

One linear classifier of the whole label path: its classes are the distinct paths of the training rows, so a coarse
label is its answer's ancestor. The penalty C is chosen along a path from strong to weak, each fit begun at the last
one's weights, by accuracy on validation rows, or by cross-validation on the training rows where those are few. A few
steps per C tell which is best; the chosen one is then fitted to the end.

L-BFGS (scipy) in coordinates in which the problem is nearly round: with P = (n/K Cov + I/C)^-1/2 and weights W = P U
the objective is the same, and tens of steps do what hundreds do on anisotropic features. Cost: two products [n, H] x
[H, K] per step. The alternative, scikit-learn's solver, takes minutes on 16,000 rows of 1,297 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from heads.errors import HeadsError
from heads.network import linear
from heads.training.inputs import Inputs, checked_features, checked_inputs, labels_of
from heads.training.validation import FEWEST, folds_of

PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0)
"""Values of C that are tried, each penalty weaker than the last."""

_FOLDS = 3
_STEPS, _LAST_STEPS = 10, 30  # L-BFGS steps per C while choosing, and of the fit with the chosen C
_TOLERANCE = 1e-4  # relative fall of the mean loss per step at which a fit stops


@dataclass(frozen=True)
class LogisticRegression:
    """A trained classifier of label paths.

    `weights` float32 [H, K] and `bias` float32 [K] score the K `paths`, labels as given, [K, L], -1 where a path ends;
    `penalty` is the C chosen, `accuracies` the finest-level accuracy of each C tried, and `reason` says how it was
    chosen.
    """

    weights: np.ndarray
    bias: np.ndarray
    paths: np.ndarray
    penalty: float
    accuracies: dict[float, float]
    reason: str

    def probabilities(self, features: Any) -> np.ndarray:
        """Probability of each path, float32 [n, K].

        :param features: real [n, H], raw as pooled; they are L2-normalised here.
        """
        rows = checked_features(features, "features")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        scores = torch.from_numpy((rows / np.maximum(lengths, 1e-12)) @ self.weights + self.bias)
        return scores.softmax(1).numpy()

    def predict(self, features: Any) -> np.ndarray:
        """Most probable path of each row, labels as given, [n, L]: the answer and its ancestors."""
        return np.asarray(self.paths[self.probabilities(features).argmax(1)])


def fit_logistic(
    features: Any,
    labels: Any,
    *,
    validation: tuple[Any, Any] | None = None,
    penalties: Sequence[float] = PENALTIES,
    device: str | torch.device = "cpu",
) -> LogisticRegression:
    """Train a logistic regression whose C is chosen from the data.

    :param features: real [n, H], raw as pooled; they are L2-normalised here.
    :param labels: integers [n, L], coarsest first, -1 below a row's last known level.
    :param validation: features and labels that choose C; with fewer than 200 rows, or none, the training rows are
        cross-validated in three folds.
    :param penalties: values of C, increasing: the inverse of the squared weights' factor beside the summed loss.
    :raises HeadsError: if the input does not fit together or has fewer than two label paths.
    """
    inputs = checked_inputs(features, labels, validation, torch.device(device), every_held_row=True)
    paths, targets = np.unique(inputs.labels.cpu().numpy(), axis=0, return_inverse=True)
    if len(paths) < 2:
        raise HeadsError("the training rows have one label path", "give rows of two or more classes")
    own = torch.from_numpy(targets.reshape(-1)).to(inputs.features.device)
    finest = torch.from_numpy(paths[:, -1]).to(own.device)
    problem = _Problem(inputs.features, own, len(paths))
    held, held_labels = inputs.validation, inputs.validation_labels
    if held is not None and held_labels is not None and len(held) >= FEWEST:
        fits = problem.path(penalties)
        scored = {c: _accuracy(held, held_labels[:, -1], fit, finest) for c, fit in fits.items()}
        best = max(scored, key=lambda c: scored[c])
        begin = fits[best]
        reason = f"C = {best:g} by accuracy on {len(held):,} validation rows"
    else:
        scored = _cross_validated(inputs, own, len(paths), finest, penalties)
        best = max(scored, key=lambda c: scored[c])
        begin = problem.path([c for c in penalties if c <= best])[best]
        reason = f"C = {best:g} by {_FOLDS}-fold cross-validation on {len(own):,} training rows"
    weights, bias = problem.solve(best, begin, _LAST_STEPS)
    return LogisticRegression(
        weights.cpu().numpy(), bias.cpu().numpy(), labels_of(paths, inputs.names), best, scored, reason
    )


def _cross_validated(
    inputs: Inputs, own: Tensor, paths: int, finest: Tensor, penalties: Sequence[float]
) -> dict[float, float]:
    """Accuracy of each C on rows left out, over all folds."""
    correct = dict.fromkeys(penalties, 0.0)
    for split in folds_of(inputs.features, inputs.labels, _FOLDS):
        kept, left_out = split.kept, split.left_out
        for c, fit in _Problem(inputs.features[kept], own[kept], paths).path(penalties).items():
            accuracy = _accuracy(inputs.features[left_out], inputs.labels[left_out, -1], fit, finest)
            correct[c] += accuracy * len(left_out) / len(own)
    return correct


def _accuracy(rows: Tensor, labels: Tensor, fit: _Fit, finest: Tensor) -> float:
    known = labels >= 0
    answers = finest[torch.addmm(fit.bias, rows, fit.weights).argmax(1)]
    return float((answers == labels)[known].double().mean()) if bool(known.any()) else 0.0


class _Fit(NamedTuple):
    """Weights [H, K] and bias [K], float32, for features that are not centred."""

    weights: Tensor
    bias: Tensor


class _Problem:
    """The regression of some rows, in coordinates that do not depend on C."""

    def __init__(self, features: Tensor, targets: Tensor, classes: int) -> None:
        self._targets, self._classes = targets, classes
        self._centre = features.double().mean(0)
        self._rows = features - self._centre.float()
        exact = self._rows.double()
        values, axes = torch.linalg.eigh(exact.T @ exact / len(exact))
        self._variances, self._axes, self._centre = values.clamp(min=0).cpu(), axes.cpu(), self._centre.cpu()

    def path(self, penalties: Sequence[float]) -> dict[float, _Fit]:
        """Fits of a few steps by C, each begun at the last one."""
        counts = torch.bincount(self._targets, minlength=self._classes).cpu()
        fit = _Fit(torch.zeros(len(self._axes), self._classes), counts.clamp(min=0.1).log().float())
        fits = {}
        for c in penalties:
            fits[c] = fit = self.solve(c, fit, _STEPS)
        return fits

    def solve(self, c: float, begin: _Fit, steps: int) -> _Fit:
        """The fit with some C after so many L-BFGS steps from `begin`."""
        n, device = len(self._rows), self._rows.device
        scale = (n / self._classes * self._variances + 1 / c) ** -0.5
        onto, bias_scale = self._axes * scale, (self._classes / n) ** 0.5
        rows = self._rows @ onto.float().to(device)
        ridge = (scale[:, None] ** 2 / (2 * c * n)).float().to(device)
        weights, bias = begin.weights.cpu().double(), begin.bias.cpu().double()
        bias = bias + self._centre @ weights
        start = torch.vstack([self._axes.T @ weights / scale[:, None], bias / bias_scale]).numpy()
        index = torch.arange(n, device=device)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            both = torch.from_numpy(flat.reshape(start.shape)).float().to(device)
            weights, bias = both[:-1], both[-1] * bias_scale
            scores = linear(rows, weights.mT, bias).log_softmax(1)
            penalty = ridge * weights
            value = float(-scores[index, self._targets].double().mean() + (penalty * weights).double().sum())
            scores = scores.exp_()
            scores[index, self._targets] -= 1
            by_weights = linear(rows.mT, scores.mT).div_(n).add_(penalty, alpha=2)
            gradient = torch.vstack([by_weights, scores.sum(0) * (bias_scale / n)])
            return value, gradient.double().cpu().numpy().reshape(-1)

        options = {"maxiter": steps, "maxcor": 10, "ftol": _TOLERANCE, "gtol": 0.0}
        found = optimize.minimize(loss, start.reshape(-1), jac=True, method="L-BFGS-B", options=options)
        both = torch.from_numpy(found.x.reshape(start.shape))
        weights = onto @ both[:-1]
        bias = both[-1] * bias_scale - self._centre @ weights
        return _Fit(weights.float().to(device), bias.float().to(device))
