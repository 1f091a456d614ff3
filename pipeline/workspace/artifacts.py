"""Where everything lies below the artifacts folder, and what the last `embed` used.

`current.json` is the only memory a command has of earlier ones: the dataset (how to load it again) and the backbone of
the last `embed`. How each embedded dataset was loaded is kept beside it in `data/<dataset id>.json`, so that
`--dataset NAME` finds it with its options. A dataset is always loaded from its source, never from a copy: a label
changed in the source is a label changed in the next command.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import cache
import data
from pipeline.errors import PipelineError
from pipeline.workspace.records import read_record, tell, write_record

_EMBED_AGAIN = "run `pipeline embed DATASET` again: it writes this file anew and computes only what is missing"


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
    description: data.Description = field(default_factory=data.Description)

    @property
    def arguments(self) -> dict[str, Any]:
        """All but the source, by the names that `data.load` takes them under."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "source"}

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that is read for it, by path or URL."""
        known = self.description
        names = (name.rpartition("=")[2] for name in known.names)
        tree = () if known.hierarchy is None else (known.hierarchy,)
        return (self.source, *known.files, *known.train, *known.val, *known.test, *names, *tree)

    @property
    def options(self) -> list[str]:
        """The options that say so on the command line, words of a shell."""
        said = {name: getattr(self, name) for name in ("levels", "qualify_labels", "drop_incomplete")}
        text = (self.text,) if self.text != "text" else None
        words = replace(self.description, text=text, **said).words
        return [*words, *(["--limit", str(self.limit)] if self.limit else []), *(["--all"] if self.all_rows else [])]


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
    current_file: Path = field(init=False)

    def __post_init__(self) -> None:
        places = (("features", "features"), ("runs", "runs"), ("datasets", "data"), ("current_file", "current.json"))
        for name, place in places:
            object.__setattr__(self, name, self.root / place)

    @property
    def embedded_before(self) -> bool:
        """Whether `embed` has run here."""
        return os.path.lexists(self.current_file)

    def current(self) -> Current:
        """What `embed` used last.

        :raises PipelineError: if nothing was embedded here yet, or the file is damaged.
        """
        current = read_record(self.current_file, Current, again=_EMBED_AGAIN)
        if current is None:
            raise PipelineError(
                f"nothing was embedded in {self.root} yet",
                "begin with `pipeline run DATASET`; or name the folder where that was done: --artifacts FOLDER",
            )
        return current

    def remember(self, current: Current, also_called: str | None = None) -> None:
        """Makes `current` what later commands take by default; `also_called` is another name of its backbone."""
        if also_called not in (None, current.backbone.name):
            write_record(self._backbone_file(str(also_called)), asdict(current.backbone))
        write_record(self._backbone_file(current.backbone.name), asdict(current.backbone))
        write_record(self.datasets / f"{current.dataset_id}.json", asdict(current.dataset))
        write_record(self.current_file, asdict(current))

    def _backbone_file(self, name: str) -> Path:
        return self.features / f"{name}.json"

    def backbone_source(self, name: str) -> BackboneSource:
        """How to get a backbone again, by its name in the store, or by what was typed to embed with it.

        :raises cache.CacheError: if nothing was embedded with it here and no backbone of that name is known.
        """
        try:
            kept = read_record(self._backbone_file(name), BackboneSource, again=_EMBED_AGAIN)
        except PipelineError as error:
            tell(f"{error}; {name} is looked up by its name")
            kept = None
        if kept is not None:
            return kept
        resolved = cache.resolve(name)
        if resolved.name != name and self._backbone_file(resolved.name).is_file():
            return self.backbone_source(resolved.name)
        return BackboneSource(resolved.name, lasting_source(name), resolved.prompt)

    def dataset_source(self, name: str | None) -> DatasetSource:
        """How to load the dataset `name`: one embedded here (by id, name or source), else a source as typed.

        Of several that answer to a name the whole one is meant, not one embedded with --limit; of several of these the
        one that `embed` used last. A line says what was chosen where there was a choice.

        :raises PipelineError: if `name` is None and nothing was embedded yet, or if several datasets answer to it, or
            none, and it is no source either.
        """
        if name is None:
            return self.current().dataset
        found = self._answering(name)
        whole = {id_: source for id_, source in found.items() if source.limit is None}
        left = set((whole or found).values())
        if len(left) > 1 and self.embedded_before:
            left &= {self.current().dataset}
        if not left and found:
            raise PipelineError(f"{len(found)} datasets answer to {name}: {', '.join(found)}", "name one by its id")
        if not found and not _may_be_source(name) and (kept := self._kept()):
            raise PipelineError(
                f"there is no dataset and no file {name!r}", f"name one embedded here: {', '.join(kept)}; or a file"
            )
        chosen = left.pop() if left else DatasetSource(lasting_source(name))
        if name not in found and (len(set(found.values())) > 1 or chosen.limit is not None):
            ids = ", ".join(id_ for id_, source in found.items() if source == chosen)
            others = ", ".join(id_ for id_, source in found.items() if source != chosen)
            options = " ".join(chosen.options)
            tell(
                f"{name} is taken for {ids}, embedded {f'with {options}' if options else 'whole'}"
                + (f"; others here: {others}" if others else "")
            )
        return chosen

    def ids_answering(self, name: str) -> list[list[str]]:
        """Ids of the datasets embedded here that `name` may mean: first those of `dataset_source`, then all others."""
        found = self._answering(name)
        if not found:
            return []
        chosen = self.dataset_source(name)
        groups = [[i for i, s in found.items() if (s == chosen) is meant] for meant in (True, False)]
        return [group for group in groups if group]

    def _answering(self, name: str) -> dict[str, DatasetSource]:
        kept = self._kept()
        if self.embedded_before:
            current = self.current()
            kept[current.dataset_id] = current.dataset
        if name in kept:
            return {name: kept[name]}
        return {id_: source for id_, source in kept.items() if _answers(name, id_, source)}

    def _kept(self) -> dict[str, DatasetSource]:
        found = {}
        for path in sorted(self.datasets.glob("*.json")):
            try:
                source = read_record(path, DatasetSource, again=_EMBED_AGAIN)
            except PipelineError as error:
                tell(f"{error}; left out")
                continue
            if source is not None:
                found[path.stem] = source
        return found

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
        return data.load(source.source, folder=self.datasets, **source.arguments)


def _may_be_source(name: str) -> bool:
    """Whether a name may be a built-in dataset, a file or a URL, so that a better error is due when it is loaded."""
    return name in data.BUILT_IN or bool(set(name) & set("/\\.:")) or Path(name).exists()


def _answers(name: str, dataset_id: str, source: DatasetSource) -> bool:
    return name in (dataset_id, dataset_id.rsplit("-", 1)[0]) or lasting_source(name) == source.source


def lasting_source(typed: str) -> str:
    """What a person typed for a dataset or backbone; a local path made absolute, to be found from any folder.

    A built-in name stays a name, whatever lies in the current folder.
    """
    if typed in data.BUILT_IN or typed in cache.backbone.BACKBONES:
        return typed
    path = Path(typed).expanduser()
    if path.exists():
        return str(path.resolve())
    name, mark, options = typed.rpartition("?")  # of a backbone, as in a URL
    return f"{lasting_source(name)}?{options}" if mark else typed
