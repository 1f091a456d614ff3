"""Which epoch of a fit is kept: the best by nearest neighbours on held-out texts.

At most 1,000 validation texts, each labelled by the k = 5 nearest of the others on the full vector; the score is the
accuracy on level 0 plus that on the finest level, as published. The texts are the same for every seed and method. Of
equal epochs the later is kept; with fewer than 200 texts, which cannot tell, the last.

So few texts fit into one matrix of similarities, which is ranked where it lies: the search of `heads.knn`,
made for galleries that do not, asks the device many times how much it found, and a GPU waits each time. Rules and
results are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heads.knn.tile_scan import GRID, ROW_BITS

_ALONE = 0.01  # of rows, the only ones of their class: from there on rows look drawn at random
FEWEST = 200  # texts that can tell
NEIGHBOURS = 5
_ROWS_HASHED = 1 << 16  # at once
_LABEL_BITS, _SUM_BITS = 24, 32
_CELLS = 1 << 26  # similarities at a time, 256 MB: a gallery of a million rows is asked by 67 texts at a time


def accuracies(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Leave-one-out accuracy of full vectors float32 [n, D] with labels int64 [n, L]: float64 [L], on their device."""
    exact = embeddings.double()
    lengths = torch.linalg.vector_norm(exact, dim=1, keepdim=True)
    lengths = torch.where(lengths == 0, 1.0, lengths)
    units = ((exact @ exact.T) * (GRID / lengths.T) / lengths).round_().long()
    rows = torch.arange(len(exact), device=exact.device)
    keys = (units << ROW_BITS) - rows
    keys.fill_diagonal_(torch.iinfo(torch.int64).min)  # no text is its own neighbour
    found = keys.topk(min(NEIGHBOURS, len(rows) - 1)).values
    nearest = (found + (1 << ROW_BITS) - 1) >> ROW_BITS
    places = (nearest << ROW_BITS) - found
    correct = [_elected(column[places], nearest) == column for column in labels.T]
    known = (labels.T >= 0).double()
    return (torch.stack(correct) * known).sum(1) / known.sum(1).clamp(min=1)


def drawn_at_random(labels: Tensor) -> bool:
    """Whether rows of labels [n, L] look drawn at random: at least one in a hundred is alone in its class.

    Then a row left out stands for a new one: the share of rows whose class has c others is the share of new rows whose
    class has c rows (Good, 1953, equation 2). In a set with as many rows per class it has a row less than a new one.
    """
    _, counts = torch.unique(labels, dim=0, return_counts=True)
    return int((counts == 1).sum()) >= _ALONE * len(labels)


@dataclass(frozen=True)
class Split:
    """Rows that are `kept`, those `left_out` that judge what is made of the kept, int64, and how many neighbours vote.

    Five vote, or one where of most of their classes fewer than five rows are kept and rows were not drawn at
    random (`drawn_at_random`): what is left of a small class is then outvoted by classes that lost no row, and the more
    so the closer a map draws the rows of a class together. On CLINC with two rows per class five voters preferred
    `pca`, which is 8.7 points behind `lda` in the whole gallery.
    """

    kept: Tensor
    left_out: Tensor
    voters: int


def folds_of(features: Tensor, labels: Tensor, folds: int, *, keep: int = 0, random: bool | None = None) -> list[Split]:
    """Split rows of features [n, H] and labels int64 [n, L] into folds, those that keep rows and leave some out.

    The rows of a deepest class are dealt out in turn, so that each fold leaves out about its share of every class. Rows
    of equal features are one text that stands several times, and go together: else each would be found by its double.

    :param keep: texts of each class that no fold leaves out: what trains on pairs is else judged without them.
    :param random: what `drawn_at_random` says of the rows, where that was asked already.
    """
    random = drawn_at_random(labels) if random is None else random
    first, text_of = _distinct(features)
    if len(first) < 2 * folds:  # too few to part
        first = text_of = np.arange(len(features))
    deepest = labels.cpu().numpy()[first]
    order = np.random.default_rng(0).permutation(len(deepest))
    order = order[np.lexsort(deepest[order].T)]
    begins = np.r_[True, (np.diff(deepest[order], axis=0) != 0).any(axis=1)]
    path = np.cumsum(begins) - 1
    rank = np.arange(len(order)) - np.flatnonzero(begins)[path]
    spare = order[rank >= keep]
    dealt = np.full(len(order), folds)
    dealt[spare] = np.arange(len(spare)) % folds
    dealt = dealt[text_of]
    class_of = np.unique(labels.cpu().numpy(), axis=0, return_inverse=True)[1]  # a text's rows may differ in it
    class_of = class_of.reshape(-1)  # numpy 2.0 gives a column
    found = []
    for fold in range(folds):
        kept, left_out = np.flatnonzero(dealt != fold), np.flatnonzero(dealt == fold)
        if not len(kept) or not len(left_out):  # fewer rows than folds
            continue
        left = np.bincount(class_of[kept], minlength=len(class_of))[class_of[left_out]]  # of each one's class
        enough = random or 2 * (left < NEIGHBOURS).sum() < len(left)
        rows = [torch.from_numpy(part).to(labels.device) for part in (kept, left_out)]
        found.append(Split(rows[0], rows[1], NEIGHBOURS if enough else 1))
    return found


def _distinct(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each that differs by a 64-bit hash, in order, int64 [u]; and for each row which it is, [n]."""
    factors = np.random.default_rng(0).integers(1 << 62, size=features.shape[1], dtype=np.int64) * 2 + 1
    odd = torch.from_numpy(factors).to(features.device)
    blocks = [
        (block.contiguous().view(torch.int32) * odd).sum(1) for block in torch.split(features.float(), _ROWS_HASHED)
    ]
    _, first, inverse = np.unique(torch.cat(blocks).cpu().numpy(), return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse]


def _elected(candidates: Tensor, units: Tensor) -> Tensor:
    """Elect a label per row of int64 [n, k]: most votes, then the larger sum of units [n, k], then the lower label.

    Labels of -1 do not vote; where nothing else stands the answer is -1.
    """
    same = candidates[:, :, None] == candidates[:, None, :]
    votes, sums = same.sum(2), (same * units[:, None, :]).sum(2)
    ranks = ((votes << _SUM_BITS) + sums) << _LABEL_BITS
    ranks.masked_fill_(candidates < 0, torch.iinfo(torch.int64).min >> 1)
    best = (ranks - candidates).argmax(1, keepdim=True)
    return candidates.gather(1, best)[:, 0]


def gallery_accuracies(
    gallery: Tensor, labels: Tensor, queries: Tensor, asked: Tensor, dims: Sequence[int], voters: int = NEIGHBOURS
) -> Tensor:
    """Whether neighbours in a gallery answer right: float32 [J, L, q], 0 or 1, and NaN where a label is not known.

    :param gallery: real [g, D]; prefixes are normalised here.
    :param labels: int64 [g, L] of the gallery, -1 where not known: such a neighbour does not vote.
    :param queries: real [q, D].
    :param asked: int64 [q, L], what would be right.
    :param dims: lengths of the prefixes, increasing.
    :param voters: neighbours that vote.
    """
    k = min(voters, len(gallery))
    lengths = [torch.linalg.vector_norm(gallery[:, :dim], dim=1).clamp_(min=1e-12) for dim in dims]
    step = max(1, _CELLS // len(gallery))
    parts = [
        _answered(gallery, labels, queries[i : i + step], asked[i : i + step], dims, lengths, k)
        for i in range(0, max(1, len(queries)), step)
    ]
    return torch.cat(parts, 2)


def _answered(
    gallery: Tensor,
    labels: Tensor,
    queries: Tensor,
    asked: Tensor,
    dims: Sequence[int],
    lengths: Sequence[Tensor],
    k: int,
) -> Tensor:
    """The same of some queries, with the lengths [g] of the gallery's prefixes."""
    products, first, found = torch.zeros(len(queries), len(gallery), device=gallery.device), 0, []
    for dim, length in zip(dims, lengths, strict=True):
        products.addmm_(queries[:, first:dim], gallery[:, first:dim].T)
        scale = torch.linalg.vector_norm(queries[:, :dim], dim=1, keepdim=True).clamp_(min=1e-12)
        nearest, places = (products / length).topk(k, 1)
        units = ((nearest / scale) * (GRID >> 4)).round().long()
        answers = torch.stack([_elected(labels[places, level], units) for level in range(labels.shape[1])])
        found.append(torch.where(asked.T < 0, torch.nan, (answers == asked.T).float()))
        first = dim
    return torch.stack(found)
