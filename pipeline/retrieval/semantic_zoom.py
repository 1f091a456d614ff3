"""The texts nearest to one text, at every prefix of a head: semantic zoom.

The query takes the path of `pipeline encode`, by the same function, so its features are the same bits; the neighbours
are found by the search that scores (`heads.knn`), all prefixes in one pass. What would take longest is mapping
the corpus through the head again for every question, so its embedding is kept beside the run, with the id of the
dataset whose texts these are: rows may have changed since the run was trained. 4 bytes per dimension and text.

In the terminal it is one table, texts x prefixes, whose cells are ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import heads
from heads.knn import prefix_neighbours
from pipeline.terminal.escape import shown
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.kept_arrays import keep_arrays, read_arrays
from pipeline.workspace.runs import Run

_WIDE = 120
"""Columns from which labels get as much room as texts."""


def zoom_table(query: str, found: Sequence[PrefixHits], levels: Sequence[str], width: int) -> Iterator[Table | str]:
    """One table: a row per text that any prefix finds, its rank at each prefix, its labels; above it who agrees.

    A text that every prefix finds stands once, so that what changes from one prefix to the next is seen at a glance.
    """
    yield f"nearest to: {query}"
    for prefix in found:
        yield f"  {prefix.dim:>4} dims: {_summary(prefix, levels)}"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title="rank at each number of dims", title_justify="left")
    for prefix in found:
        table.add_column(str(prefix.dim), justify="right", no_wrap=True)
    table.add_column("text", ratio=3 if width < _WIDE else 2, overflow="fold")
    table.add_column(Text(" > ".join(levels)), ratio=2, overflow="fold")
    for hit in dict.fromkeys(hit.row for prefix in found for hit in prefix.hits):
        ranks = [next((str(r) for r, h in enumerate(z.hits, 1) if h.row == hit), "-") for z in found]
        first = next(h for z in found for h in z.hits if h.row == hit)
        table.add_row(*ranks, Text(shown(first.text)), Text(shown(_path(first.labels, 28 if width < _WIDE else 50))))
    yield table


def _path(labels: Sequence[str], most: int) -> str:
    """The finest label in full, those above it cut to so many characters: a row of long ones would take nine lines."""
    known = [label for label in labels if label]
    above = (name if len(name) <= most else f"{name[: most - 1].rstrip()}…" for name in known[:-1])
    return " > ".join([*above, *known[-1:]])


def _summary(prefix: PrefixHits, levels: Sequence[str]) -> str:
    """How many of the hits agree, level by level."""
    agreed = zip(levels, prefix.shares(), strict=True)
    return ", ".join(f"{level} {label} {count}/{len(prefix.hits)}" for level, (label, count) in agreed)


KEPT = "train-embeddings.npz"


@dataclass(frozen=True)
class Hit:
    """A text of the corpus: its row in the training split, its cosine, its labels, coarsest first ("": it has none)."""

    row: int
    similarity: float
    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class PrefixHits:
    """The nearest texts at one prefix, nearest first."""

    dim: int
    hits: tuple[Hit, ...]

    def shares(self) -> tuple[tuple[str, int], ...]:
        """For each level the label that most hits carry, of equally many the nearer one, and how many do."""
        levels = zip(*(hit.labels for hit in self.hits), strict=True)
        return tuple(Counter(level).most_common(1)[0] for level in levels)

    def to_dict(self, levels: tuple[str, ...]) -> dict[str, Any]:
        """Spell the prefix out for JSON."""
        return {
            "dim": self.dim,
            "results": [
                {
                    "rank": rank,
                    "row": hit.row,
                    "similarity": hit.similarity,
                    "text": hit.text,
                    "labels": {level: label or None for level, label in zip(levels, hit.labels, strict=True)},
                }
                for rank, hit in enumerate(self.hits, start=1)
            ],
        }


def nearest(run: Run, features: LabelledFeatures, query: np.ndarray, top: int) -> tuple[PrefixHits, ...]:
    """Find the training texts nearest to a query at each prefix of a run's head.

    :param query: features [1, H].
    :param top: texts per prefix; all of them where there are fewer.
    :raises PipelineError: if texts of the dataset were not embedded.
    :raises heads.HeadsError: if the checkpoint is damaged.
    """
    head = run.load()
    corpus = _corpus(run.folder / KEPT, head, features)
    found = prefix_neighbours(head.embed(query), corpus, head.dims, top)
    dataset = features.dataset
    rows, texts = dataset.split_rows("train"), dataset.texts
    named = [
        [classes[label] if label >= 0 else "" for label in column]
        for classes, column in zip(dataset.hierarchy.classes, dataset.labels[rows].T.tolist(), strict=True)
    ]
    return tuple(
        PrefixHits(
            dim,
            tuple(
                Hit(int(row), float(similarity), texts[rows[row]], tuple(level[row] for level in named))
                for row, similarity in zip(found.indices[j, 0], found.similarities[j, 0], strict=True)
            ),
        )
        for j, dim in enumerate(head.dims)
    )


def _corpus(path: Path, head: heads.FractalHead, features: LabelledFeatures) -> np.ndarray:
    """Embeddings of the training texts, float32 [n, D]: those kept, else made and kept."""
    dataset = np.array(features.dataset.id)
    kept = read_arrays(path, ("embeddings", "dataset"))
    if kept is not None and np.array_equal(kept["dataset"], dataset):
        return kept["embeddings"]
    made = head.embed(features.split("train")[0])
    keep_arrays(path, {"embeddings": made, "dataset": dataset}, compress=False)
    return made
