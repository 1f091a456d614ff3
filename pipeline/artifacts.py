"""Where everything lies below the artifacts folder, and what the last `embed` used.

`current.json` is the only memory a command has of earlier ones: the dataset (how to load it again) and the backbone of
the last `embed`. How each embedded dataset was loaded is kept beside it in `data/<dataset id>.json`, so that
`--dataset NAME` finds it with its options. A dataset is always loaded from its source, never from a copy: a label
changed in the source is a label changed in the next command.
"""

from __future__ import annotations

import json
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


@dataclass(frozen=True)
class BackboneSource:
    """The backbone of an embed: its name in the store, what was typed to get it (name, hub id or path), its prompt."""

    name: str
    source: str
    prompt: str


@dataclass(frozen=True)
class Current:
    """What `embed` used last."""

    dataset: DatasetSource
    dataset_id: str
    backbone: BackboneSource


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

    def current(self) -> Current:
        """What `embed` used last.

        :raises PipelineError: if nothing was embedded here yet, or the file is damaged.
        """
        if not self._current_file.is_file():
            raise PipelineError(
                f"nothing was embedded in {self.root} yet", "run `pipeline embed DATASET` first, or name --artifacts"
            )
        record = _read_json(self._current_file)
        try:
            return Current(
                DatasetSource.of(record["dataset"]), record["dataset_id"], BackboneSource(**record["backbone"])
            )
        except (KeyError, TypeError) as error:
            raise PipelineError(
                f"{self._current_file} is not what `embed` wrote ({error})", "delete it and run `pipeline embed` again"
            ) from error

    def remember(self, current: Current) -> None:
        """Makes `current` what later commands take by default."""
        _write_json(self._current_file, asdict(current))
        _write_json(self.datasets / f"{current.dataset_id}.json", asdict(current.dataset))

    def backbone_source(self, name: str) -> BackboneSource:
        """How to get the backbone called `name` again: as the last `embed` got it, else by that name.

        :raises cache.CacheError: if no backbone of that name is known.
        """
        if self._current_file.is_file():
            backbone = self.current().backbone
            if name in (backbone.name, backbone.source):
                return backbone
        resolved = cache.resolve(name)
        return BackboneSource(resolved.name, name, resolved.prompt)

    def dataset_source(self, name: str | None) -> DatasetSource:
        """How to load the dataset `name`: one embedded here (by id, name or source), else a source as typed.

        :raises PipelineError: if `name` is None and nothing was embedded yet.
        """
        if name is None:
            return self.current().dataset
        if self._current_file.is_file():
            current = self.current()
            if name in (current.dataset_id, current.dataset_id.rsplit("-", 1)[0], current.dataset.source):
                return current.dataset
        kept = self.datasets / f"{name}.json"
        if kept.is_file():
            return DatasetSource.of(_read_json(kept))
        return DatasetSource(name)

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


def lasting_source(typed: str) -> str:
    """What a person typed for a dataset or backbone; a local path made absolute, to be found from any folder."""
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
