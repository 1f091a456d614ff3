"""A frozen backbone, a trained head and the texts that it was trained on, as one object.

Features come from the store that the `pipeline` command uses too, so a text that either has seen is not computed again.
The training texts with their vectors stay in the object: they are what `search` looks through. 4 bytes per dimension
and text, 1 kB at 256 dimensions. The alternative, mapping them through the head on each load, needs the backbone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import cache
import heads
from data import DataError, Hierarchy
from data.hierarchy import conflict_error, find_conflicts
from pipeline.retrieval.knn import search
from pipeline.retrieval.quantization import stored
from pipeline.terminal.escape import shown
from pipeline.workspace.artifacts import lasting_source
from pipeline.workspace.records import file_digest, tell
from semantic_zoom.columns import label_doubts, label_frame, text_list

GALLERY = "gallery.parquet"
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """A text's labels, coarsest first, and the probability of each; the path as a whole has the last one's."""

    path: tuple[str, ...]
    confidence: tuple[float, ...]


@dataclass(frozen=True)
class Hit:
    """A text that `search` found: its row among the training texts, its cosine, its labels (None: it has none)."""

    text: str
    path: tuple[str | None, ...]
    similarity: float
    row: int


@dataclass(frozen=True, eq=False)
class Zoom:
    """Texts to embeddings whose prefixes are embeddings too, to label paths, and to similar texts.

    `record` says how the head came about, in the words of a run's config.json; `gallery` has a column text and one per
    level; `vectors` float32 [n, D] are its embeddings. `store` is the folder of features.
    """

    head: heads.FractalHead
    record: Mapping[str, Any]
    gallery: pl.DataFrame
    vectors: Singles
    store: Path

    @classmethod
    def fit(
        cls,
        texts: Any,
        labels: Any,
        *,
        backbone: str | Path = "minilm",
        method: str = "joint",
        head: str | None = None,
        seed: int = 42,
        epochs: int | None = None,
        validation: tuple[Any, Any] | None = None,
        levels: Sequence[str] | None = None,
        store: str | Path | None = None,
        device: Any = "auto",
        progress: Callable[[str, float], None] | None = None,
    ) -> Zoom:
        """Embed texts that were never embedded, then train a head on their features.

        :param texts: n strings: a list, an array, a Series, a generator.
        :param labels: per text a label, or its labels from coarse to fine, or a frame with a column per level.
        :param backbone: a name that `pipeline embed` knows, a hub id, or a checkpoint folder.
        :param method: a name of `heads.METHODS`.
        :param head: a head preset; by default the method's own.
        :param epochs: by default the method's own.
        :param validation: texts and labels that choose the epoch kept; one text alone chooses nothing.
        :param levels: names of the levels, coarsest first.
        :param store: folder of features; by default that of the `pipeline` command, `artifacts/features` below the
            current folder or `PIPELINE_ARTIFACTS`.
        :param device: "auto", "cpu", "cuda", "cuda:1", or a `torch.device`.
        :param progress: told the stage ("embed", "fit") and the share of it that is done, 0 to 1.
        :raises data.DataError: if texts and labels do not fit together, or a label stands under two parents.
        :raises cache.CacheError: if the backbone cannot be had.
        :raises heads.HeadsError: if nothing can be learnt from these labels.
        """
        rows = text_list(texts)
        frame = label_frame(labels, len(rows), levels)
        if taken := {"text", "embedding"} & set(frame.columns):
            raise DataError(f"a level is called {min(taken)}, as a column of Zoom.save is", "name the levels otherwise")
        if validation is not None and not (isinstance(validation, tuple | list) and len(validation) == 2):
            raise DataError("validation is no pair", "pass two: texts and labels")
        held = text_list(validation[0], "validation texts") if validation else []
        if validation is not None and not held:
            raise DataError("validation holds no texts", "leave it out, or pass texts and labels")
        everything = frame
        if validation is not None:
            everything = frame.vstack(label_frame(validation[1], len(held), frame.columns))
        hierarchy = _tree(everything)
        numbers = hierarchy.labels(everything)
        for line in label_doubts(everything):
            tell(line)
        folder = _store_folder(store)
        source = cache.resolve(str(backbone))
        report = cache.embed_missing(
            rows + held,
            cache.EmbedRequest(source, folder, devices=str(device)),
            None if progress is None else lambda p: progress("embed", p.done / max(p.total, 1)),
        )
        kept = cache.FeatureStore.open(report.stores[0].folder)
        features = kept.gather(cache.text_keys(rows + held, source.prompt)).astype(np.float32)
        own = len(rows)
        options: dict[str, Any] = {} if head is None else {"head": head}
        (result,) = heads.fit_many(
            features[:own],
            numbers[:own],
            seeds=[seed],
            method=method,
            validation=(features[own:], numbers[own:]) if len(held) > 1 else None,  # one text has no neighbour
            epochs=epochs,
            classes=hierarchy.sizes,
            device=device,
            progress=None if progress is None else lambda p: progress("fit", p.share),
            **options,
        )
        if result.chosen.get("epochs") == 0:
            tell(f"{method}: {result.chosen['reason']}")
        record = {
            "backbone": source.name,
            "backbone_source": lasting_source(str(backbone)),
            "prompt": source.prompt,
            "layer": int(kept.description["layer"]),
            "fingerprint": report.stores[0].fingerprint,
            "features": dict(kept.description),
            "method": method,
            "head": result.head.preset,
            "seed": int(seed),  # of numpy perhaps, which JSON does not know
            "levels": list(hierarchy.names),
            "classes": [list(names) for names in hierarchy.classes],
            "dims": list(result.head.dims),
        }
        result.head.record = record  # a plain dict, which can be pickled
        gallery = frame.insert_column(0, pl.Series("text", rows))
        return cls(result.head, record, gallery, result.head.embed(features[:own]), folder)

    @property
    def dims(self) -> tuple[int, ...]:
        """Lengths of the prefixes, the full embedding last."""
        return self.head.dims

    def __repr__(self) -> str:
        """One line: the method, what it was trained on, and what it can be asked for."""
        known = f"{self.gallery.height:,} texts" if self.gallery.height else "nothing to search"
        head = f"{self.record['method']}, {self.record['backbone']}"
        return shown(f"Zoom({head}, {' > '.join(self.levels)}, dims {self.dims}, {known})")

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels, coarsest first."""
        return tuple(self.record["levels"])

    def encode(self, texts: Any, dim: int | None = None) -> Singles:
        """Embed texts.

        :param dim: length of the prefix, one of `dims`; the full vector by default.
        :returns: float32 [n, dim], unit vectors: the first `dim` dimensions of the full vector, normalised.
        :raises data.DataError: if a row is no text.
        :raises heads.HeadsError: if `dim` is no prefix.
        :raises cache.CacheError: if the backbone cannot be had, or is not the one that the head was trained on.
        """
        return self.head.embed(self._features(texts, dim), dim=dim)

    def predict(self, texts: Any, dim: int | None = None) -> list[Prediction]:
        """Label texts: of all paths of the label tree the most probable one, by the head's own classifiers.

        :param dim: length of the prefix that the classifiers see; the full vector by default.
        :raises data.DataError: if a row is no text.
        :raises heads.HeadsError: if `dim` is no prefix.
        :raises cache.CacheError: as `encode`.
        """
        found = self.head.predict(self._features(texts, dim), dim=dim)
        ends = (found.labels >= 0).sum(axis=1).tolist()
        return [
            Prediction(
                tuple(names[c] for names, c in zip(self.record["classes"], path[:end], strict=False)), tuple(sure[:end])
            )
            for path, sure, end in zip(found.labels.tolist(), found.probability.tolist(), ends, strict=True)
        ]

    def score(self, texts: Any, labels: Any, dim: int | None = None, level: int | str = -1) -> float:
        """Share of texts whose label `predict` finds.

        :param labels: as for `fit`, columns of a frame by the names of the levels; texts without a label of the level
            do not count.
        :param level: number or name of the level, by default the finest.
        :raises data.DataError: if texts and labels do not fit together, no label was trained, or there is no such level
            or nothing to score.
        """
        rows = text_list(texts)
        frame = label_frame(labels, len(rows), self.levels)
        at = self._level(level)
        known = frame.to_series(at).drop_nulls()
        if len(known) and not known.is_in(self.record["classes"][at]).any():
            raise DataError(
                f"no label is a class of level {self.levels[at]}, such as {self.record['classes'][at][0]!r}",
                f"write labels as they were trained, not {known[0]!r}",
            )
        found = [prediction.path[at] if at < len(prediction.path) else None for prediction in self.predict(rows, dim)]
        pairs = [(a, b) for a, b in zip(frame.to_series(at).to_list(), found, strict=True) if a is not None]
        if not pairs:
            raise DataError(f"no text has a label {self.levels[at]}", "pass texts with labels of that level")
        return float(np.mean([a == b for a, b in pairs]))

    def search(self, query: str | Sequence[str], dim: int | None = None, top: int = 10) -> list[Any]:
        """Find the training texts nearest to a text by cosine of a prefix, exactly.

        :param query: a text, or several.
        :param dim: length of the prefix; the full vector by default.
        :param top: texts per query; all of them where there are fewer.
        :returns: hits, nearest first; for several queries a list of these lists.
        :raises data.DataError: if a query is no text, `top` is below 1, or this was loaded from a folder without
            training texts.
        """
        if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
            raise DataError(f"top is {top!r}", "name how many texts to find: 1 or more")
        self._check_dim(dim)
        if not len(self.gallery):
            raise DataError("there are no texts to search", "load a folder that Zoom.save wrote")
        single = isinstance(query, str)
        if not single and not (query := text_list(query)):
            return []
        found = search(self.encode([query] if single else query), self._stored(dim or self.dims[-1]), top)
        texts, paths = self.gallery["text"], self.gallery.drop("text").rows()
        hits = [
            [Hit(texts[row], paths[row], min(cosine, 1.0), row) for row, cosine in zip(*each, strict=True)]
            for each in zip(found.rows.tolist(), found.similarities.tolist(), strict=True)
        ]
        return hits[0] if single else hits

    def save(self, folder: str | Path) -> None:
        """Write head, record and training texts into a new folder; nothing is pickled.

        :raises cache.CacheError: if it is there already, or cannot be written.
        """
        with cache.store.atomic_folder(Path(folder)) as partial:
            vectors = pl.Series("embedding", self.vectors, dtype=pl.Array(pl.Float32, self.dims[-1]))
            self.gallery.with_columns(vectors).write_parquet(partial / GALLERY)
            digests = {GALLERY: file_digest((partial / GALLERY).read_bytes())}
            heads.save(self.head, partial, {**self.record, "files": digests})

    @classmethod
    def load(cls, folder: str | Path, *, store: str | Path | None = None) -> Zoom:
        """Read what `save` wrote, or a run's folder of the `pipeline` command, which has nothing to search.

        :param store: as for `fit`.
        :raises heads.HeadsError: if a file of the head is missing or damaged.
        :raises data.DataError: if the training texts do not belong to the head.
        """
        head = heads.load(Path(folder))
        record = dict(head.record)
        if not {"backbone_source", "levels", "classes", "fingerprint"} <= record.keys():
            raise DataError(f"{folder} says nothing of its backbone", "name a folder that Zoom.save wrote")
        where = _store_folder(store)
        path, width = Path(folder) / GALLERY, head.dims[-1]
        if not path.is_file():
            if GALLERY in record.get("files", {}):
                raise DataError(f"{path} is missing", "copy it again from where it was saved, or fit again")
            return cls(head, record, pl.DataFrame({"text": []}), np.zeros((0, width), np.float32), where)
        try:
            content = path.read_bytes()
            if record.get("files", {}).get(GALLERY, file_digest(content)) != file_digest(content):
                raise DataError(f"{path} is not what was saved", "copy it again from where it was saved, or fit again")
            frame = pl.read_parquet(content)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path} cannot be read ({error})", "save it again") from error
        if frame.columns != ["text", *record["levels"], "embedding"] or frame["embedding"].dtype != pl.Array(
            pl.Float32, width
        ):
            raise DataError(f"{path} does not belong to the head beside it", "save it again")
        return cls(head, record, frame.drop("embedding"), frame["embedding"].to_numpy().copy(), where)

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process without what is made when needed."""
        return {name: self.__dict__[name] for name in ("head", "record", "gallery", "vectors", "store")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def _prefixes(self) -> dict[int, Any]:
        return {}

    def _stored(self, dim: int) -> Any:
        if dim not in self._prefixes:
            self._prefixes[dim] = stored(self.vectors, dim)
        return self._prefixes[dim]

    def _level(self, level: int | str) -> int:
        count = len(self.levels)
        if isinstance(level, str):
            if level in self.levels:
                return self.levels.index(level)
        elif isinstance(level, int | np.integer) and not isinstance(level, bool) and -count <= level < count:
            return range(count)[level]
        raise DataError(f"no level {level!r}", f"use one of {', '.join(self.levels)}, or their numbers from 0")

    def _check_dim(self, dim: int | None) -> None:
        if dim is not None and dim not in self.dims:
            known = ", ".join(map(str, self.dims))
            raise heads.HeadsError(f"dim is {dim!r}, which is no prefix: there are {known}", "use one of these")

    def _features(self, texts: Any, dim: int | None) -> Singles:
        self._check_dim(dim)
        rows = text_list(texts)
        if not rows:
            return np.zeros((0, int(self.record["features"]["hidden_size"])), np.float32)
        from pipeline.stages.encode import features_as_trained  # brings the command line's own libraries

        return features_as_trained(self.store, self.record, rows, self.record["backbone_source"])[0]


def _tree(labels: pl.DataFrame) -> Hierarchy:
    """The tree of labels, columns from coarse to fine.

    :raises DataError: if it is none; rows are counted from 0, as everywhere in Python.
    """
    if conflicts := find_conflicts(labels, labels.columns):
        problem = conflict_error(conflicts, labels.columns, range(labels.height)).problem
        raise DataError(problem, "pass levels from coarse to fine, and a label of two parents as parent/label of each")
    return Hierarchy.from_frame(labels, labels.columns)


def _store_folder(store: str | Path | None) -> Path:
    return Path(store or Path(os.environ.get("PIPELINE_ARTIFACTS") or "artifacts", "features"))
