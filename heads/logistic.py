"""Multinomial logistic regression on the features: the flat classifier that every head is compared with.

One linear classifier of the whole label path: its classes are the distinct paths of the training rows, so a coarse
label is its answer's ancestor. The penalty C is chosen along a path from strong to weak, each fit begun at the last
one's weights, by accuracy on validation rows, or by cross-validation on the training rows where those are few.

L-BFGS (scipy) in coordinates in which the problem is nearly round: with P = (n/K Cov + I/C)^-1/2 and weights W = P U
the objective is the same, and tens of steps do what hundreds do on anisotropic features. Cost: two products [n, H] x
[H, K] per step. The alternative, scikit-learn's solver, takes minutes on 16,000 rows of 1,297 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from heads.errors import HeadsError
from heads.training.inputs import Inputs, checked_inputs, folds_of
from heads.training.validation import FEWEST

PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0)
"""Values of C that are tried, each penalty weaker than the last."""

_FOLDS = 3
_STEPS, _TOLERANCE = 30, 1e-3  # L-BFGS steps per C, and the fall of the mean loss per step at which it stops


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
        from heads.head import checked_features

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
    held, held_labels = inputs.validation, inputs.validation_labels
    if held is not None and held_labels is not None and len(held) >= FEWEST:
        problem = _Problem(inputs.features, own, len(paths))
        found = [(c, *problem.solve(c)) for c in penalties]
        scored = {c: _accuracy(held, held_labels[:, -1], weights, bias, finest) for c, weights, bias in found}
        best = max(scored, key=lambda c: scored[c])
        weights, bias = next(fit for c, *fit in found if c == best)
        reason = f"C = {best:g} by accuracy on {len(held):,} validation rows"
    else:
        scored = _cross_validated(inputs, own, len(paths), finest, penalties)
        best = max(scored, key=lambda c: scored[c])
        problem = _Problem(inputs.features, own, len(paths))
        for c in penalties:
            weights, bias = problem.solve(c)
            if c == best:
                break
        reason = f"C = {best:g} by {_FOLDS}-fold cross-validation on {len(own):,} training rows"
    return LogisticRegression(weights.cpu().numpy(), bias.cpu().numpy(), inputs.named(paths), best, scored, reason)


def _cross_validated(
    inputs: Inputs, own: Tensor, paths: int, finest: Tensor, penalties: Sequence[float]
) -> dict[float, float]:
    """Accuracy of each C on rows left out, over all folds."""
    correct = dict.fromkeys(penalties, 0.0)
    for kept, left_out in folds_of(inputs.labels, _FOLDS):
        problem = _Problem(inputs.features[kept], own[kept], paths)
        for c in penalties:
            weights, bias = problem.solve(c)
            accuracy = _accuracy(inputs.features[left_out], inputs.labels[left_out, -1], weights, bias, finest)
            correct[c] += accuracy * len(left_out) / len(own)
    return correct


def _accuracy(rows: Tensor, labels: Tensor, weights: Tensor, bias: Tensor, finest: Tensor) -> float:
    known = labels >= 0
    answers = finest[torch.addmm(bias, rows, weights).argmax(1)]
    return float((answers == labels)[known].double().mean()) if bool(known.any()) else 0.0


class _Problem:
    """The regression of some rows, and where its last solution ended."""

    def __init__(self, features: Tensor, targets: Tensor, classes: int) -> None:
        self._targets, self._classes = targets, classes
        self._centre = features.double().mean(0)
        self._rows = features - self._centre.float()
        exact = self._rows.double()
        values, axes = torch.linalg.eigh(exact.T @ exact / len(exact))
        self._variances, self._axes = values.clamp(min=0).cpu().numpy(), axes.cpu().numpy()
        self._weights = np.zeros((features.shape[1], classes))
        self._bias = np.log(np.maximum(torch.bincount(targets, minlength=classes).cpu().numpy(), 0.1))

    def solve(self, c: float) -> tuple[Tensor, Tensor]:
        """Weights float32 [H, K] and bias [K] for features that are not centred."""
        n, device = len(self._rows), self._rows.device
        scale = (n / self._classes * self._variances + 1 / c) ** -0.5
        onto = torch.from_numpy(self._axes * scale).to(device)
        rows = self._rows @ onto.float()
        ridge = torch.from_numpy(scale[:, None] ** 2 / (2 * c * n)).float().to(device)
        start = np.vstack([(self._axes.T @ self._weights) / scale[:, None], self._bias * (n / self._classes) ** 0.5])
        bias_scale = (self._classes / n) ** 0.5
        index = torch.arange(n, device=device)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            both = torch.from_numpy(flat.reshape(start.shape)).float().to(device)
            weights, bias = both[:-1], both[-1] * bias_scale
            scores = torch.addmm(bias, rows, weights).log_softmax(1)
            penalty = ridge * weights
            value = float(-scores[index, self._targets].double().mean() + (penalty * weights).double().sum())
            scores = scores.exp_()
            scores[index, self._targets] -= 1
            gradient = torch.empty_like(both)
            torch.matmul(rows.T, scores, out=gradient[:-1])
            gradient[:-1].div_(n).add_(penalty, alpha=2)
            gradient[-1] = scores.sum(0) * (bias_scale / n)
            return value, gradient.double().cpu().numpy().reshape(-1)

        options = {"maxiter": _STEPS, "maxcor": 10, "ftol": _TOLERANCE / 10, "gtol": 0.0}
        found = optimize.minimize(loss, start.reshape(-1), jac=True, method="L-BFGS-B", options=options)
        both = found.x.reshape(start.shape)
        self._weights = (self._axes * scale) @ both[:-1]
        self._bias = both[-1] * bias_scale
        bias = self._bias - self._centre.cpu().numpy() @ self._weights
        return (torch.from_numpy(self._weights).float().to(device), torch.from_numpy(bias).float().to(device))
