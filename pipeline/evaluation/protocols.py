"""How accuracy is measured: which labelled texts per query is compared with.

Each protocol answers "what does a prefix know of a level" by k nearest neighbours and returns
`Predictions`: every single prediction, since intervals, paired tests and confusion need more than shares.

- `score_embeddings` ("gallery"): every query against one gallery of other texts.
- `leave_one_out`: samples of 500 texts, each text against the other 499; 20 samples, the same for every run.
- `gallery_grid`: the 2 x 2 that tells a small gallery from an untrained one. Two things differ between the first two
  protocols at once: the gallery's size, and whether the head was trained on its texts. Here every cell has one size and
  one origin (training rows, or held-out rows), and in every cell and draw the same held-out texts are asked, each
  against exactly that many rows and never itself. Cells of a size differ by origin alone, cells of an origin by size.

What an interval covers. For `gallery` it is a bootstrap over the texts asked, embedding and gallery given: other
queries of the same kind land inside. In leave-one-out the texts are one another's neighbours, so other texts are other
queries and other neighbours at once, and each sits in several samples (in all of them, if the split is hardly larger
than a sample). A text is resampled with all its answers, and these among themselves; the galleries stay as drawn, since
resampled ones would put copies of a query among its own neighbours. In simulations of whole splits drawn anew, 93 to 98
% of such 95 % intervals held the protocol's mean over all splits; `tests/pipeline/evaluation/test_statistics.py`
repeats two. The interval covers neither another seed nor another training set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product, takewhile
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heads.knn import Neighbours, growing_neighbours, prefix_lengths, prefix_neighbours, vote
from pipeline.errors import PipelineError
from pipeline.evaluation.predictions import Ints, Origin, Predictions

Vectors = NDArray[np.floating[Any]]

BLOCK = 64
NEIGHBOURS = 5
_SPARE = 5  # times the neighbours that a sample is expected to need
_FEW = 2  # samples' worth of rows, up to which looking for their neighbours once costs less than sample by sample


def score_embeddings(
    gallery: Vectors,
    gallery_labels: Ints,
    queries: Vectors,
    query_labels: Ints,
    *,
    scale_dim: int | Sequence[int] = BLOCK,
    k: int = NEIGHBOURS,
    device: str | None = None,
) -> Predictions:
    """Ask every query at every prefix of one gallery: the protocol "gallery".

    :param gallery: [g, D], training rows as a rule.
    :param gallery_labels: int64 [g, L], coarsest level first.
    :param queries: [q, D], texts that are not in the gallery.
    :param query_labels: int64 [q, L].
    :param scale_dim: width of a block, or the lengths of the prefixes, such as (64, 128, 192, 256, 768).
    :param k: neighbours that vote; the whole gallery if it is smaller.
    :param device: where to search; the CPU by default.
    :raises PipelineError: if embeddings and labels do not go together, or there is no query.
    :raises heads.HeadsError: if the embeddings cannot be searched.
    """
    _check(gallery, gallery_labels, "gallery")
    _check(queries, query_labels, "queries")
    search = _Search(scale_dim, k, device)
    found = [search.classify(queries, query_labels, gallery, gallery_labels)]
    return search.predictions("gallery", len(gallery), queries, query_labels, [np.arange(len(queries))], found)


def classified(predicted: Ints, labels: Ints, dim: int, gallery: int, k: int) -> Predictions:
    """Labels from a classifier, int64 [q, L], as the predictions of one prefix that the protocol "gallery" would give.

    :param dim: dimensions that it looks at.
    :param gallery: rows that it was trained on.
    :param k: of the neighbours that it stands beside; all are taken to agree with the prediction.
    """
    matching = np.where(predicted == labels, min(k, gallery), 0)
    rows = np.arange(len(labels))
    return Predictions("gallery", k, (dim,), gallery, 1, labels, rows, predicted[None], matching[None])


def leave_one_out(
    embeddings: Vectors,
    labels: Ints,
    *,
    sample: int = 500,
    samples: int = 20,
    scale_dim: int | Sequence[int] = BLOCK,
    k: int = NEIGHBOURS,
    device: str | None = None,
) -> Predictions:
    """Ask each text of a sample of the others of it: the published protocol, averaged over fixed samples.

    :param embeddings: [n, D], held-out rows.
    :param labels: int64 [n, L].
    :param sample: texts per sample; if there are no more than that, one sample of all of them.
    :param samples: how many. Which rows they hold depends on n and `sample` alone.
    :raises PipelineError: if embeddings and labels do not go together, or there are no two rows.
    :raises heads.HeadsError: if the embeddings cannot be searched.
    """
    _check(embeddings, labels, "embeddings")
    if len(embeddings) == 1:
        raise PipelineError(
            "leave-one-out compares test texts with one another, and there is one test text",
            "give more test rows; `pipeline score` compares the one with the training texts",
        )
    search = _Search(scale_dim, k, device)
    rows = list(sample_rows(len(labels), sample, samples))
    found = search.classify_samples(embeddings, labels, rows)
    return search.predictions("leave-one-out", len(rows[0]) - 1, embeddings, labels, rows, found, "held-out")


def gallery_grid(
    train: Vectors,
    train_labels: Ints,
    held_out: Vectors,
    held_out_labels: Ints,
    *,
    sizes: Sequence[int] | None = None,
    draws: int = 5,
    scale_dim: int | Sequence[int] = BLOCK,
    k: int = NEIGHBOURS,
) -> tuple[Predictions, ...]:
    """Ask the same texts of galleries of every size, drawn from training rows and from held-out rows.

    All held-out rows are asked in every cell and draw. A row that is in its held-out gallery is replaced there by one
    more row, so that each is compared with exactly `size` others; at size n - 1 this is leave-one-out over all rows.
    Of one draw, a larger gallery contains the smaller ones.

    :param train: [g, D], embeddings that the head was trained on; `train_labels` int64 [g, L].
    :param held_out: [n, D], embeddings that it was not trained on; `held_out_labels` int64 [n, L].
    :param sizes: rows of a gallery, by default `grid_sizes(g, n)`; a size that one origin alone has gives one cell.
    :param draws: galleries drawn per cell, the same for every run; one where the gallery is all that there is.
    :returns: one cell each, by size, training rows before held-out ones; `gallery` and `origin` name it.
    :raises PipelineError: if embeddings and labels do not go together, or a size is more than either origin has.
    :raises heads.HeadsError: if the embeddings cannot be searched.
    """
    _check(train, train_labels, "training embeddings")
    _check(held_out, held_out_labels, "held-out embeddings")
    most: dict[Origin, int] = {"train": len(train), "held-out": len(held_out) - 1}
    wanted = grid_sizes(len(train), len(held_out)) if sizes is None else sorted(set(sizes))
    for size in wanted:
        if not 0 < size <= max(most.values()):
            raise PipelineError(
                f"no gallery of {size:,} rows can be drawn from {len(train):,} training rows or from "
                f"{len(held_out):,} held-out rows but one",
                f"give sizes from 1 to {max(most.values())}",
            )
    search = _Search(scale_dim, k, None)
    found: dict[tuple[int, Origin], list[_Votes]] = {(size, name): [] for size in wanted for name in most}
    for (origin, rows), draw in product(most.items(), range(draws)):
        fitting = [size for size in wanted if size < rows or (size == rows and draw == 0)]
        own = origin == "held-out"
        gallery, labels = (held_out, held_out_labels) if own else (train, train_labels)
        order = _order(len(gallery), draw)
        near = growing_neighbours(held_out, gallery, order, fitting, scale_dim, k, exclude="same-row" if own else None)
        for size, one in zip(fitting, near, strict=True):
            found[size, origin].append(_votes_of(one, held_out_labels, labels))
    return tuple(
        search.predictions("gallery-grid", size, held_out, held_out_labels, [np.arange(len(held_out))] * len(votes),
                           votes, origin)
        for (size, origin), votes in found.items() if votes
    )  # fmt: skip


def grid_sizes(train: int, held_out: int) -> list[int]:
    """Gallery sizes worth measuring: 500 and its doublings, all but one of the held-out rows, all training rows."""
    doublings = takewhile(lambda size: size < train, (500 << i for i in range(40)))
    return sorted({max(held_out - 1, 1), train, *doublings})


def sample_rows(total: int, sample: int = 500, samples: int = 20) -> Iterator[Ints]:
    """Rows of each leave-one-out sample, in ascending order; all rows, once, if a sample would hold them all."""
    if total <= sample:
        yield np.arange(total)
        return
    for i in range(samples):
        yield np.sort(_order(total, i)[:sample])


def _order(total: int, draw: int) -> Ints:
    """A shuffle of rows that depends on their number and the draw alone, so that every run has the same."""
    return np.random.default_rng(draw).permutation(total)


class _Votes(NamedTuple):
    """Labels that the neighbours of q queries vote for, and how many neighbours share the query's: int64 [J, q, L]."""

    predicted: Ints
    matching: Ints


@dataclass(frozen=True)
class _Search:
    """The settings of the neighbour search, the same in all samples of a measurement."""

    scale_dim: int | Sequence[int]
    k: int
    device: str | None

    def classify(
        self,
        queries: Vectors,
        query_labels: Ints,
        gallery: Vectors,
        labels: Ints,
        exclude: Literal["same-row"] | None = None,
    ) -> _Votes:
        """Let a gallery [g, D] with labels [g, L] vote on queries [q, D], and count who has the query's own label."""
        found = prefix_neighbours(queries, gallery, self.scale_dim, self.k, exclude=exclude, device=self.device)
        return _votes_of(found, query_labels, labels)

    def classify_each_other(self, embeddings: Vectors, labels: Ints) -> _Votes:
        """Label each row [n, D] by all the others."""
        return self.classify(embeddings, labels, embeddings, labels, exclude="same-row")

    def classify_samples(self, embeddings: Vectors, labels: Ints, samples: Sequence[Ints]) -> list[_Votes]:
        """Label each row of every sample by the sample's others.

        Samples of few rows overlap: the neighbours of all rows are then found once, more than a sample is expected to
        need, and a sample's are the first of these that are in it. A sample that needs more is searched by itself.
        """
        size, total = len(samples[0]), len(embeddings)
        depth = min(_SPARE * self.k * total // size, total - 1)
        if len(samples) == 1 or total > _FEW * size or depth < self.k:
            return [self.classify_each_other(embeddings[rows], labels[rows]) for rows in samples]
        near = prefix_neighbours(embeddings, embeddings, self.scale_dim, depth, exclude="same-row", device=self.device)
        return [self._votes_within(near, embeddings, labels, rows) for rows in samples]

    def _votes_within(self, near: Neighbours, embeddings: Vectors, labels: Ints, rows: Ints) -> _Votes:
        """Label each row of a sample by its neighbours among all rows that are in the sample."""
        sampled = np.zeros(len(embeddings), np.bool_)
        sampled[rows] = True
        indices, similarities = near.indices[:, rows], near.similarities[:, rows]
        counted = sampled[indices].cumsum(axis=2)
        if counted[:, :, -1].min() < self.k:
            return self.classify_each_other(embeddings[rows], labels[rows])
        places = np.argmax(counted[..., None] == np.arange(1, self.k + 1), axis=2)
        found = Neighbours(*(np.take_along_axis(one, places, axis=2) for one in (indices, similarities)))
        return _votes_of(found, labels[rows], labels)

    def predictions(
        self,
        protocol: str,
        gallery: int,
        queries: Vectors,
        labels: Ints,
        rows: Sequence[Ints],
        found: Sequence[_Votes],
        origin: Origin | None = None,
    ) -> Predictions:
        """Put the samples of a measurement together: `rows` queried and votes `found`, one entry per sample."""
        return Predictions(
            protocol=protocol,
            k=self.k,
            dims=prefix_lengths(self.scale_dim, queries.shape[1]),
            gallery=gallery,
            samples=len(rows),
            labels=labels,
            query_index=np.concatenate(rows),
            predicted=np.concatenate([part.predicted for part in found], axis=1),
            matching=np.concatenate([part.matching for part in found], axis=1),
            origin=origin,
        )


def _votes_of(found: Neighbours, query_labels: Ints, labels: Ints) -> _Votes:
    """Let neighbours vote, and count those that share the query's label [q, L], of gallery labels [g, L]."""
    matching = [
        (column[found.indices] == own[:, None]).sum(axis=2)
        for column, own in zip(labels.T, query_labels.T, strict=True)
    ]
    return _Votes(vote(*found, labels), np.stack(matching, axis=2))


def _check(embeddings: Vectors, labels: Ints, name: str) -> None:
    """Refuse rows that do not go with their labels."""
    if embeddings.ndim != 2 or labels.ndim != 2 or len(embeddings) != len(labels) or not len(labels):
        raise PipelineError(
            f"{name} {tuple(embeddings.shape)} do not go with labels {tuple(labels.shape)}",
            "give embeddings [n, D] and labels [n, L] of the same texts, at least one",
        )
