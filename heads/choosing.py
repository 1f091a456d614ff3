"""What `joint` trains, chosen by the data: the head, the epochs, or no training at all.

Candidates are the closed forms (`lda`, `pca`, `features`), a linear map begun at `lda`, and the MLP begun at it. Each
is fitted on the training rows and judged by what is reported, neighbours among them, at every prefix and level: on
validation rows (1,000 at most), or, where those are fewer than 200, in cross-validation on training rows: three folds
that leave each class two rows, since a class of one has no pair to learn from, or, where that leaves out fewer than
200, ten folds of all rows; of each fold 1,000 rows at most, and those of small classes by one neighbour
(`validation.Split`).

The best closed form stands until a candidate is better: its mean gain must exceed its standard error, and no prefix and
level may lose more than a point, or what its own standard error allows. So where too few rows can tell, nothing is
trained. Of those that are better, the best is taken. Where each class was given its rows, `lda` stands against other
closed forms in the same way: with a row less per class it is judged below what it is on all rows.

Beyond 5,000 training rows one short fit of the MLP is judged, by its mean gain alone, and the epochs follow from the
number of classes: each finest class is to be seen 140 times. Where the short fit gains nothing, that may be because it
is short: the whole fit is judged before training is given up. The choice is made once per data set, never per seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from heads.head import FractalHead
from heads.training import validation
from heads.training.inputs import Inputs, fixed_sample, part_of_inputs

ROWS = 5000  # training rows up to which every candidate is fitted
_ROWS_AT_A_TIME = 1 << 16  # through a head
SEEN = 140  # times that each finest class is seen in a fit of more, in between so many epochs:
_EPOCHS = (3, 16)
_SHORT = ("mlp", 1)
_LOSS = 0.01  # of accuracy at one prefix and level, that no evidence of a mean gain makes up for


@dataclass(frozen=True)
class Choice:
    """A head preset and the epochs it is trained for; 0 epochs are the closed form `closed` alone.

    `shrinkage` is that of `lda`, settled once for all candidates; None: chosen where needed.
    """

    head: str
    epochs: int
    reason: str
    scores: dict[str, float]
    closed: str = "lda"
    shrinkage: float | None = None

    @property
    def closed_form(self) -> bool:
        """Whether nothing is trained."""
        return self.epochs == 0

    def to_json(self) -> dict[str, Any]:
        """The choice as it is recorded; `scores` are accuracies, the mean over prefixes and levels."""
        return asdict(self)


CLOSED_FORMS = ("lda", "pca", "features")
CANDIDATES = (("linear-lda", 5), ("mlp", 8))

Train = Callable[[Inputs, str, int], FractalHead]
"""Fits a preset for some epochs, or with 0 epochs a closed form, with a fixed seed."""


def choose(inputs: Inputs, train: Train) -> Choice:
    """Choose among the candidates.

    :param train: fits one candidate.
    """
    many = len(inputs.features) > ROWS
    splits = list(_splits(inputs))
    results = {(name, 0): _correct(splits, (name, 0), train) for name in (CLOSED_FORMS[:1] if many else CLOSED_FORMS)}
    closed = (CLOSED_FORMS[0], 0)
    for candidate in results:
        gained = _mean(results[candidate]) > _mean(results[closed])
        if gained and (splits[0].fair or _is_better(results[candidate], results[closed], every_cell=True)):
            closed = candidate
    standing = closed
    can_train = all(_share_classes(split.inputs.labels) for split in splits)
    trained = (_SHORT, (_SHORT[0], _epochs_for(inputs))) if many else CANDIDATES
    for candidate in trained if can_train else ():
        if many and standing != closed:
            break
        found = results[candidate] = _correct(splits, candidate, train)
        better = _is_better(found, results[closed], every_cell=not many)
        standing = max(standing, candidate, key=lambda one: _mean(results[one])) if better else standing
    scores = {_name(candidate): _mean(found) for candidate, found in results.items()}
    gain = (scores[_name(standing)] - scores[_name(closed)]) * 100
    rows = results[closed].shape[2]
    where = f"on {rows:,} validation rows" if len(splits) == 1 else f"in cross-validation on {rows:,} training rows"
    if standing == closed:
        why = f"no candidate is better {where}: training does not pay here"
        reason = f"{closed[0]}, since {why if can_train else 'too few rows share a finest label to train on them'}"
        return Choice("linear", 0, reason, scores, closed[0])
    reason = f"{_name(standing)}, gains {gain:.1f} points on the closed form {closed[0]} {where}"
    if many:
        standing = (standing[0], _epochs_for(inputs))
        reason += f"; trained for {standing[1]}, so that each of {inputs.classes[-1]:,} classes is seen {SEEN} times"
    return Choice(*standing, reason, scores, closed[0])


def _share_classes(labels: Tensor) -> bool:
    """Whether two rows of labels [n, L] have the same: what is trained needs pairs."""
    return bool((torch.unique(labels, dim=0, return_counts=True)[1] > 1).any())


def _epochs_for(inputs: Inputs) -> int:
    """Epochs in which a finest class is seen often enough: each row is an anchor once, and draws a partner."""
    wanted = -(-SEEN * inputs.classes[-1] // (2 * len(inputs.features)))
    return min(max(wanted, _EPOCHS[0]), _EPOCHS[1])


def _name(candidate: tuple[str, int]) -> str:
    head, epochs = candidate
    return f"{head}, {epochs} {'epoch' if epochs == 1 else 'epochs'}" if epochs else head


class _Judged(NamedTuple):
    """Training rows with the rows that judge what is fitted on them, and how many neighbours vote.

    `fair`: whether what judges stands for new rows, so that a closed form is what it looks like.
    """

    inputs: Inputs
    voters: int
    fair: bool


def _splits(inputs: Inputs) -> Iterator[_Judged]:
    """The validation rows as one split, or splits of the training rows."""
    if inputs.validation is not None and len(inputs.validation) >= validation.FEWEST:
        rows = fixed_sample(len(inputs.validation))
        labels = None if inputs.validation_labels is None else inputs.validation_labels[rows]
        held = replace(inputs, validation=inputs.validation[rows], validation_labels=labels)
        yield _Judged(held, validation.NEIGHBOURS, fair=True)
        return
    random = validation.drawn_at_random(inputs.labels)
    texts = inputs.features, inputs.labels
    folds = validation.folds_of(*texts, 5 if random else 3, keep=0 if random else 2, random=random)
    if not random and sum(len(fold.left_out) for fold in folds) < validation.FEWEST:
        folds = validation.folds_of(*texts, 10, random=random)
    for fold in folds:
        asked = fold.left_out[fixed_sample(len(fold.left_out))]
        yield _Judged(part_of_inputs(inputs, fold.kept, asked), fold.voters, fair=random)


def _correct(splits: list[_Judged], candidate: tuple[str, int], train: Train) -> Tensor:
    """Whether each judging row is right at each prefix and level, [J, L, q], NaN where its label is not known."""
    found = []
    for part, voters, _ in splits:
        head = train(part, *candidate)
        assert part.validation is not None and part.validation_labels is not None
        gallery, queries = _embedded(head, part.features), head(part.validation)
        correct = validation.gallery_accuracies(
            gallery, part.labels, queries, part.validation_labels, head.dims, voters
        )
        found.append(correct.cpu())
    return torch.cat(found, 2)


def _embedded(head: FractalHead, features: Tensor) -> Tensor:
    """Unit vectors of features [n, H], some at a time: the hidden layer of a million rows would take 8 GB."""
    return torch.cat([head(rows) for rows in torch.split(features, _ROWS_AT_A_TIME)])


def _mean(correct: Tensor) -> float:
    return float(correct.nanmean())


def _is_better(found: Tensor, standing: Tensor, *, every_cell: bool) -> bool:
    gains = (found - standing).double()
    each = gains.nanmean((0, 1))
    if float(each.mean()) <= _error(each):
        return False
    return not every_cell or all(
        float(cell.mean()) >= -max(_LOSS, _error(cell))
        for cell in (cell[~cell.isnan()] for cell in gains.flatten(0, 1))
        if len(cell)
    )


def _error(values: Tensor) -> float:
    """Standard error of a mean; infinite for one value."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("inf")
