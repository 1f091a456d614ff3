"""New texts through backbone and head: the embedding's prefix, and the predicted label of each level.

The labels of a text are one path of the tree, the most probable under all levels' classifiers together; one argmax per
level would be as fast and could give a label below another's parent. Null stands below the end of a path.

The texts take the path of the texts that the head was trained on (same checkpoint, same number formats), which the
fingerprint proves, and their features are kept in the same store: encoding a file twice computes it once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import cache
import data
from data.files.several import read_files
from pipeline.errors import PipelineError
from pipeline.stages.embed import how_read, reading_lines
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.records import forbidden, tell
from pipeline.workspace.runs import Run

EMBEDDING = "embedding"
GIVEN = "_given"
"""Added to the name of an input's column of labels that is called like a level of the run."""


@dataclass(frozen=True)
class Input:
    """Texts to encode, and the frame [n] of all columns of their file as they go into the result."""

    texts: list[str]
    frame: pl.DataFrame


@dataclass(frozen=True)
class Encoded:
    """The input's columns, then embedding (array of float32), label and probability per level; the report of embed."""

    frame: pl.DataFrame
    report: cache.EmbedReport


def encode(
    artifacts: Artifacts,
    run: Run,
    given: Input,
    dim: int,
    *,
    backbone: str | None = None,
    progress: Callable[[cache.EmbedProgress], None] | None = None,
) -> Encoded:
    """Embeds texts and predicts their labels with the classifiers of a run's head at `dim` dimensions.

    :param given: of `beside`, so that no column is called like one of the result.
    :param backbone: where the run's backbone is found now, if not where it was when the run was trained.
    :raises PipelineError: if `dim` is no prefix of the head.
    :raises cache.CacheError: if the backbone cannot be loaded, or is not the run's.
    :raises heads.HeadsError: if the head is damaged.
    """
    head = run.load()
    if dim not in head.dims:
        raise PipelineError(f"--dim {dim} is no prefix of run {run.id}", f"use one of {', '.join(map(str, head.dims))}")
    features, report = features_of_texts(artifacts, run, given.texts, backbone, progress)
    columns: dict[str, Any] = {EMBEDDING: pl.Series(head.embed(features, dim=dim), dtype=pl.Array(pl.Float32, dim))}
    trained = [depth for depth, is_trained in enumerate(head.labelling.supervised) if is_trained]
    if trained:
        found = head.predict(features, dim=dim)
        for depth in range(trained[-1] + 1):
            level, classes = run.record["levels"][depth], run.record["classes"][depth]
            labels = [None if number < 0 else classes[number] for number in found.labels[:, depth]]
            columns[level] = pl.Series(labels, dtype=pl.String)
            columns[f"{level}_confidence"] = pl.Series(found.probability[:, depth], dtype=pl.Float32).fill_nan(None)
    return Encoded(pl.concat([given.frame, pl.DataFrame(columns)], how="horizontal"), report)


def added_columns(levels: Sequence[str]) -> list[str]:
    """Names of the columns that `encode` adds.

    :raises PipelineError: if two would have one name, such as that of a level called `embedding`.
    """
    names = [EMBEDDING, *(name for level in levels for name in (level, f"{level}_confidence"))]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise PipelineError(
            f"level {twice[0]} is called like another column that encode adds ({', '.join(dict.fromkeys(names))})",
            f"rename that column of the dataset ({twice[0]}_label, say), then embed and fit again",
        )
    return names


def beside(given: Input, levels: Sequence[str], source: Path) -> Input:
    """The input with names that leave room for the columns added: labels that it brings along get `_given` added.

    :raises PipelineError: if another column of it is called like one that is added.
    """
    added = added_columns(levels)
    renamed = {name: f"{name}{GIVEN}" for name in given.frame.columns if name in levels}
    taken = [name for name in given.frame.columns if name in added and name not in renamed]
    taken += [name for name in renamed.values() if name in given.frame.columns or name in added]
    if taken:
        raise PipelineError(
            f"column {taken[0]} of {source} is called like one that encode adds ({', '.join(added)})",
            "rename or remove that column of the file",
        )
    if renamed:
        tell("; ".join(f"column {old} of {source.name} is kept as {new}" for old, new in renamed.items()))
    return Input(given.texts, given.frame.rename(renamed))


def features_of_texts(
    artifacts: Artifacts,
    run: Run,
    texts: list[str],
    backbone: str | None = None,
    progress: Callable[[cache.EmbedProgress], None] | None = None,
) -> tuple[NDArray[np.float32], cache.EmbedReport]:
    """Embeds texts as those that a run was trained on were: features float32 [n, H], kept in the same store.

    Where this user may not write into the artifacts folder they are kept nowhere.

    :raises cache.CacheError: if the backbone cannot be loaded, or is not the run's.
    """
    source = backbone or str(run.record["backbone_source"])
    try:
        features, report = features_as_trained(artifacts.features, run.record, texts, source, progress)
    except (OSError, cache.CacheError) as error:
        if not forbidden(error):
            raise
        tell(f"{artifacts.features} may not be written to: features are computed and not kept")
        with tempfile.TemporaryDirectory() as place:
            features, report = features_as_trained(Path(place), run.record, texts, source, progress)
    if report.computed:
        resolved = cache.resolve(source)
        for line in reading_lines(how_read(texts, resolved), resolved.name):
            tell(line)
    return features, report


def features_as_trained(
    root: Path,
    record: Mapping[str, Any],
    texts: list[str],
    source: str,
    progress: Callable[[cache.EmbedProgress], None] | None = None,
) -> tuple[NDArray[np.float32], cache.EmbedReport]:
    """Features float32 [n, H] of texts, computed as those that a head was trained on, kept in the same store.

    :param root: the folder of features.
    :param record: of the head.
    :param source: where its backbone is found.
    :raises cache.CacheError: if the backbone cannot be loaded, or is not the head's.
    """
    description = record["features"]
    request = cache.EmbedRequest(
        source,
        root,
        layers=(int(description["layer"]),),
        dtype=str(description["compute_dtype"]),
        store_dtype=str(description["store_dtype"]),
        prompt=record["prompt"],
    )
    report = cache.embed_missing(texts, request, progress)
    found = report.stores[0]
    if found.fingerprint != record["fingerprint"]:
        raise cache.CacheError(
            f"backbone {source} has fingerprint {found.fingerprint[:12]}, "
            f"the head was trained on {record['fingerprint'][:12]}",
            "use the checkpoint that it was trained on (encode --backbone PATH), or fit on the new one",
        )
    keys = cache.text_keys(texts, record["prompt"])
    return cache.FeatureStore.open(found.folder).gather(keys).astype(np.float32), report


def read_input(path: Path, column: str) -> Input:
    """Texts of a file, and its other columns; the lines of a .txt file are its texts.

    Columns of a Parquet file keep their types, those of other files are text.

    :raises data.DataError: if the file cannot be read, has no such column, or a text is empty.
    """
    texts = data.read_texts(str(path), column)
    if path.suffix.lower() == ".txt":
        return Input(texts, pl.DataFrame({"text": texts}))
    frame = pl.read_parquet(path) if path.suffix.lower() == ".parquet" else read_files([str(path)]).frame
    if frame.height != len(texts):
        raise PipelineError(
            f"{path} has {len(texts):,} texts in {frame.height:,} rows", "report this file: no row may be lost"
        )
    return Input(texts, frame if column in frame.columns else frame.with_columns(pl.Series("text", texts)))
