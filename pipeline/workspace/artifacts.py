"""Where everything lies below the artifacts folder, and what the last `embed` used.

`current.json` is the only memory a command has of earlier ones: the dataset (how to load it again) and the backbone of
the last `embed`. How each embedded dataset was loaded is kept beside it in `data/<dataset id>.json`, so that
`--dataset NAME` finds it with its options. A dataset is always loaded from its source, never from a copy: a label
changed in the source is a label changed in the next command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cache
import data
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class DatasetSource:
    """How to load a dataset: `data.load`'s arguments, as JSON keeps them."""

    source: str
    levels: tuple[str, ...] | None = None
    text: str = "text"
    limit: int | None = None
    all_rows: bool = False
    qualify_labels: bool = False
    drop_incomplete: bool = False

    @staticmethod
    def of(record: dict[str, Any]) -> DatasetSource:
        """The source kept in a JSON record."""
        levels = record["levels"]
        return DatasetSource(**{**record, "levels": tuple(levels) if levels else None})

    @property
    def options(self) -> list[str]:
        """The options that say so on the command line, words of a shell."""
        valued = (("--levels", ",".join(self.levels or ())), ("--limit", self.limit))
        words = [word for option, value in valued if value for word in (option, str(value))]
        words += ["--text", self.text] if self.text != "text" else []
        flags = (
            ("--all", self.all_rows),
            ("--qualify-labels", self.qualify_labels),
            ("--drop-incomplete", self.drop_incomplete),
        )
        return [*words, *(flag for flag, on in flags if on)]


@dataclass(frozen=True)
class BackboneSource:
    """The backbone of an embed: its name in the store, what was typed to get it (name, hub id or path), its prompt."""

    name: str
    source: str
    prompt: str


@dataclass(frozen=True)
class Current:
    """What `embed` used last; `stores` are the folder names of the stores it filled, by absolute layer as text."""

    dataset: DatasetSource
    dataset_id: str
    backbone: BackboneSource
    stores: dict[str, str]


@dataclass(frozen=True)
class Artifacts:
    """The folder that holds everything the commands make."""

    root: Path
    features: Path = field(init=False)
    runs: Path = field(init=False)
    datasets: Path = field(init=False)

    def __post_init__(self) -> None:
        for name, folder in (("features", "features"), ("runs", "runs"), ("datasets", "data")):
            object.__setattr__(self, name, self.root / folder)

    @property
    def _current_file(self) -> Path:
        return self.root / "current.json"

    @property
    def embedded_before(self) -> bool:
        """Whether `embed` has run here."""
        return self._current_file.is_file()

    def current(self) -> Current:
        """What `embed` used last.

        :raises PipelineError: if nothing was embedded here yet, or the file is damaged.
        """
        if not self.embedded_before:
            raise PipelineError(
                f"nothing was embedded in {self.root} yet", "run `pipeline embed DATASET` first, or name --artifacts"
            )
        record = _read_json(self._current_file)
        try:
            backbone = BackboneSource(**record["backbone"])
            return Current(DatasetSource.of(record["dataset"]), record["dataset_id"], backbone, record["stores"])
        except (KeyError, TypeError) as error:
            raise PipelineError(
                f"{self._current_file} is not what `embed` wrote ({error})", "delete it and run `pipeline embed` again"
            ) from error

    def remember(self, current: Current) -> None:
        """Makes `current` what later commands take by default."""
        _write_json(self._current_file, asdict(current))
        _write_json(self.datasets / f"{current.dataset_id}.json", asdict(current.dataset))
        _write_json(self._backbone_file(current.backbone.name), asdict(current.backbone))

    def _backbone_file(self, name: str) -> Path:
        return self.features / f"{name}.json"

    def backbone_source(self, name: str) -> BackboneSource:
        """How to get a backbone again, by its name in the store, or by what was typed to embed with it.

        :raises cache.CacheError: if nothing was embedded with it here and no backbone of that name is known.
        """
        kept = self._backbone_file(name)
        if kept.is_file():
            return BackboneSource(**_read_json(kept))
        resolved = cache.resolve(name)
        return BackboneSource(resolved.name, lasting_source(name), resolved.prompt)

    def dataset_source(self, name: str | None) -> DatasetSource:
        """How to load the dataset `name`: one embedded here (by id, name or source), else a source as typed.

        :raises PipelineError: if `name` is None and nothing was embedded yet, or if several datasets answer to it.
        """
        if name is None:
            return self.current().dataset
        if self.embedded_before:
            current = self.current()
            if _answers(name, current.dataset_id, current.dataset):
                return current.dataset
        found = {id_: source for id_, source in self._kept().items() if _answers(name, id_, source)}
        if len(set(found.values())) > 1:
            raise PipelineError(f"{len(found)} datasets answer to {name}: {', '.join(found)}", "name one by its id")
        return next(iter(found.values()), DatasetSource(lasting_source(name)))

    def ids_answering(self, name: str) -> list[str]:
        """Ids of the datasets embedded here that `name` means: that of the last embed if it does, else all that do."""
        current = self.current()
        if _answers(name, current.dataset_id, current.dataset):
            return [current.dataset_id]
        return [id_ for id_, source in self._kept().items() if _answers(name, id_, source)]

    def _kept(self) -> dict[str, DatasetSource]:
        return {path.stem: DatasetSource.of(_read_json(path)) for path in sorted(self.datasets.glob("*.json"))}

    def source_as_asked(self, name: str | None, loading: Mapping[str, Any]) -> DatasetSource:
        """How to load the dataset `name` with options as typed; without any, as it was embedded here.

        :raises PipelineError: as `dataset_source` does.
        """
        if DatasetSource("", **loading) == DatasetSource(""):
            return self.dataset_source(name)
        source = self.current().dataset.source if name is None else lasting_source(name)
        return DatasetSource(source, **loading)

    def load_dataset(self, source: DatasetSource) -> data.Dataset:
        """Loads a dataset, keeping what has to be downloaded below `data/`.

        :raises data.DataError: if it cannot be loaded.
        """
        return data.load(
            source.source,
            levels=source.levels,
            text=source.text,
            limit=source.limit,
            all_rows=source.all_rows,
            qualify_labels=source.qualify_labels,
            drop_incomplete=source.drop_incomplete,
            folder=self.datasets,
        )


def _answers(name: str, dataset_id: str, source: DatasetSource) -> bool:
    return name in (dataset_id, dataset_id.rsplit("-", 1)[0]) or lasting_source(name) == source.source


def lasting_source(typed: str) -> str:
    """What a person typed for a dataset or backbone; a local path made absolute, to be found from any folder.

    A built-in name stays a name, whatever lies in the current folder.
    """
    if typed in data.BUILT_IN or typed in cache.BACKBONES:
        return typed
    path = Path(typed).expanduser()
    return str(path.resolve()) if path.exists() else typed


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path} cannot be read ({error})", "delete it and run `pipeline embed` again") from error
    if not isinstance(record, dict):
        raise PipelineError(f"{path} holds no JSON object", "delete it and run `pipeline embed` again")
    return record


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache.atomic_file(path) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
