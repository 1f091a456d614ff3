"""Stage one for vectors that one already has: any model's, any API's, put into the store under a name.

They become features like any others, stored per text as float32, so that `fit-head`, `score`, `compare`, `retrieve` and
`report` need no change. Their fingerprint is that of the bytes: one changed number is another feature set. What
computes features of further texts (`encode`, `search`) says that there is no encoder for these. The alternative,
reading the file in every command, would keep a second path for features beside the store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import data
from cache.backbone import BACKBONES, GIVEN
from cache.store import store_vectors
from pipeline.errors import PipelineError
from pipeline.evaluation.external_embeddings import read_embeddings
from pipeline.stages.embed import Embedded, shown_coarsened
from pipeline.terminal.command import Session
from pipeline.workspace.artifacts import BackboneSource, Current, DatasetSource


def given_stage(
    session: Session, source: DatasetSource, path: Path, name: str | None, options: Mapping[str, Any]
) -> Embedded:
    """Store the vectors of a file as features of a dataset's texts, and make both the current ones, shown.

    :param name: what to call them; by default the file's name without its ending.
    :raises PipelineError: if the file does not go with the dataset, or gives two rows of one text different vectors.
    :raises data.DataError: if the dataset cannot be used.
    :raises cache.CacheError: if the store cannot be written.
    """
    called = re.sub(r"[^\w.-]+", "-", name or path.stem).strip("-.").lower()
    if not called or called in BACKBONES:
        raise PipelineError(f"{name or path.stem!r} cannot be the name of these vectors", "name them with --name NAME")
    artifacts = session.artifacts
    dataset = artifacts.load_dataset(source)
    vectors = read_embeddings(path, dataset, session.console.say, bits=options["bits"])
    _refuse_two_for_one(path, dataset, vectors)
    report = store_vectors(artifacts.features, called, dataset.texts, vectors)
    used = BackboneSource(called, f"{GIVEN}{called}", "")
    artifacts.remember(Current(source, dataset.id, used, {"0": report.stores[0].folder.name}))
    return shown_coarsened(session, source, Embedded(dataset.id, dataset.warnings, used, report, dataset), options)


def _refuse_two_for_one(path: Path, dataset: data.Dataset, vectors: NDArray[np.float32]) -> None:
    """Refuse two rows of one text that have different vectors."""
    rows: dict[str, int] = {}
    for row, text in enumerate(dataset.texts):
        first = rows.setdefault(text, row)
        if first != row and not np.array_equal(vectors[first], vectors[row]):
            raise PipelineError(
                f"{path}: rows {first + 1} and {row + 1} of {dataset.id} are one text, {text[:60]!r}, with two "
                "different vectors",
                "give equal texts equal vectors, or leave one of the rows out",
            )
