"""Runs on disk: what identifies one, how its record is read and checked, and which runs there are.

A run's id is the content address of all that determines its head, so a run that exists is never trained again, and a
label changed in the data, an edited checkpoint or another learning rate is another run. A run that cannot be read is
named and left out: whatever is asked of the others goes on.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import heads
from pipeline.errors import PipelineError
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.records import (
    OLDER,
    DamagedError,
    NewerError,
    check_marks,
    content_of,
    file_digest,
    parsed,
    refuse_link_to_nothing,
    tell,
    typed,
)

if TYPE_CHECKING:
    import polars as pl

CONFIG, HISTORY = "config.json", "history.parquet"
_CONFIG_FORMAT = 2
_AGAIN = "run `pipeline fit-head` with its method and seed: it is trained again"
UNTRAINED = "untrained"
"""Folder, beside those of the methods, that holds the scores of embeddings without training."""
DAMAGED = ".damaged"
"""What is added to the name of a folder that a new run displaced."""


class _AlwaysThere(TypedDict):
    """What every release wrote."""

    id: str
    dataset: str
    backbone: str
    backbone_source: str
    prompt: str
    layer: int
    fingerprint: str
    features: dict[str, Any]
    method: str
    head: str
    seed: int
    hyperparameters: dict[str, Any]
    seconds: float
    parameters: int
    best_epoch: int
    dims: list[int]
    levels: list[str]
    classes: list[list[str]]


class RunRecord(_AlwaysThere, total=False):
    """What config.json says of a run, beside the head's own shape.

    `files` are digests of files beside it; `chosen` is what the data decided of the fit, with its reason.
    """

    files: dict[str, str]
    chosen: dict[str, Any]


@dataclass(frozen=True)
class RunKey:
    """All that determines a trained head."""

    dataset: str
    fingerprint: str
    method: str
    head: str
    seed: int
    hyperparameters: tuple[tuple[str, Any], ...]

    @property
    def id(self) -> str:
        """Content address, 12 hex digits."""
        return hashlib.blake2b(json.dumps(astuple(self)).encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class Run:
    """A trained head on disk: its folder and its config.json's record.

    `id` is its folder's name; `seed` that of initialisation, sampling and dropout; `closed_form`: no gradient step made
    the head, which is the same whatever the seed.
    """

    folder: Path
    record: Mapping[str, Any]
    id: str
    method: str
    seed: int
    closed_form: bool

    @property
    def store(self) -> str:
        """Name of the folder of the features that it was trained on, which `--backbone` takes too."""
        return f"{self.record['backbone']}-{self.record['fingerprint'][:12]}"

    def load(self) -> heads.FractalHead:
        """The trained head.

        :raises heads.HeadsError: if the checkpoint is damaged.
        """
        return heads.load(self.folder)

    def history(self) -> pl.DataFrame | None:
        """One row per epoch; None, with a line that says why, if it is missing or damaged."""
        import polars as pl

        path = self.folder / HISTORY
        try:
            content = content_of(path)
            if content is None:
                raise DamagedError(path, "it is missing")
            known = self.record.get("files", {}).get(HISTORY)
            if known not in (None, file_digest(content)):
                raise DamagedError(path, "its content does not match its digest")
            return pl.read_parquet(io.BytesIO(content))
        except PipelineError as error:
            tell(f"{error}; left out")
        except (Exception, pl.exceptions.PanicException) as error:  # whatever polars makes of a file without a digest
            tell(f"{path} is damaged: {error}; left out")
        return None

    def summary(self) -> dict[str, Any]:
        """The run as `--json` prints it."""
        names = ("dataset", "backbone", "layer", "method", "head", "seed", "seconds", "parameters", "best_epoch")
        chosen = self.record.get("chosen")
        facts = {name: self.record[name] for name in names} | ({"chosen": chosen} if chosen else {})
        return {"id": self.id, "path": str(self.folder), **facts}


@dataclass(frozen=True)
class Unreadable:
    """A place below `runs` that could not be read; `backbone` is the name of the folder it lies in, if that is known.

    Where it lies high up, and the backbone is not known, any run may be missing.
    """

    path: Path
    backbone: str | None
    error: PipelineError


def is_run(folder: Path) -> bool:
    """Whether a whole run lies there: what a killed fit left has a name that begins with a dot."""
    return (folder / CONFIG).is_file() and folder.name[0] != "."


def read_run(folder: Path) -> Run:
    """Reads and checks a run's record; the head itself is loaded when asked for.

    :raises PipelineError: if config.json is missing, damaged, not to be read, or of a later release.
    """
    path = folder / CONFIG
    content = content_of(path)
    if content is None:
        raise DamagedError(path, "it is missing", _AGAIN)
    try:
        config = typed(parsed(path, content), dict[str, Any], "")
        number = config.get("format")
        if isinstance(number, int) and number > _CONFIG_FORMAT:
            raise NewerError(path, number, _CONFIG_FORMAT)
        record = typed(config.get("record"), RunRecord, "record")
        if "digest" in record or "format" in record:
            check_marks(path, record)
        else:
            tell(f"{path} {OLDER}", once=OLDER)
        if record["id"] != folder.name:
            raise DamagedError(path, f"it is the record of run {record['id']}", _AGAIN)
        if not record["dims"] or len(record["levels"]) != len(record["classes"]):
            raise TypeError("record.dims, levels and classes do not belong together")
        closed_form = record["hyperparameters"].get("epochs") == 0
        return Run(folder, record, record["id"], record["method"], record["seed"], closed_form)
    except (DamagedError, TypeError) as error:
        raise DamagedError(path, getattr(error, "what", str(error)), _AGAIN) from error


def whole_run(folder: Path) -> Run | None:
    """The run in a folder, its head checked; None if there is none, and with a line that says why if it is damaged.

    :raises PipelineError: if its record may not be read, or a later release wrote it.
    :raises heads.HeadsError: if its weights may not be read: another user's head is not damaged.
    """
    if not os.path.lexists(folder / CONFIG):
        return None
    try:
        run = read_run(folder)
        run.load()
        return run
    except (DamagedError, heads.HeadsError) as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError | IsADirectoryError):
            raise
        tell(f"{error}; trained again")
        return None


def scan(root: Path, dataset: str = "*", backbone: str = "*") -> tuple[list[Run], list[Unreadable]]:
    """Every run below `runs`, and every place there that cannot be read.

    :raises PipelineError: if `runs` itself is a link to nothing, or not to be read: nothing is known then.
    """
    runs: list[Run] = []
    unreadable: list[Unreadable] = []

    def note(place: Path, error: PipelineError) -> None:
        unreadable.append(Unreadable(place, (*place.relative_to(root).parts, None, None)[1], error))

    def refused(error: OSError) -> None:
        place, remedy = Path(error.filename), "make it readable for you, or name another --artifacts"
        if isinstance(error, FileNotFoundError):  # no run yet, or gone meanwhile
            refuse_link_to_nothing(place)
            return
        problem = PipelineError(f"{place} cannot be read: {error.strerror}", remedy)
        if place == root:
            raise problem from error
        note(place, problem)

    for top, folders, files in os.walk(root, onerror=refused, followlinks=True):
        place = Path(top)
        depth = len(place.relative_to(root).parts)
        wanted = (dataset, backbone, "*", "*", "")[depth]
        try:
            # whole or damaged; one with scores alone is none
            if depth == 4 and {CONFIG, "head.safetensors"} & {*files, *folders} and DAMAGED not in place.name:
                runs.append(read_run(place))
        except PipelineError as error:
            note(place, error)
        below = [name for name in (*folders, *files) if wanted in ("*", name) and name[0] != "." and name != UNTRAINED]
        for link in (place / name for name in below if (place / name).is_symlink()):
            try:
                refuse_link_to_nothing(link)
            except PipelineError as error:
                note(link, error)
        folders[:] = [name for name in folders if name in below]
    return sorted(runs, key=lambda run: (*run.folder.parts[:-1], run.seed, run.id)), unreadable


def all_runs(artifacts: Artifacts, dataset: str = "*", backbone: str = "*") -> list[Run]:
    """Every run below the artifacts folder, by dataset, backbone, method, seed and id; the unreadable ones are named.

    :raises PipelineError: if `runs` is a link to nothing, or not to be read.
    """
    runs, unreadable = scan(artifacts.runs, dataset, backbone)
    for place in unreadable:
        tell(f"{place.error}; left out")
    return runs


def runs_on(artifacts: Artifacts, dataset: str, backbone: str, methods: Sequence[str] | None = None) -> list[Run]:
    """The runs of a dataset's id and a backbone, whatever the layer, by method (as listed, else in order) and seed."""
    order = list(methods or heads.METHODS)
    found = [run for run in all_runs(artifacts, dataset, backbone) if run.method in order]
    return sorted(found, key=lambda run: (order.index(run.method), run.record["head"], run.seed, run.id))


def runs_by_id(artifacts: Artifacts, ids: Sequence[str]) -> list[Run]:
    """The runs that the ids name; a unique beginning of an id, or a run's folder, will do.

    :raises PipelineError: if an id names no run or several, or a run that cannot be read.
    """
    runs, unreadable = scan(artifacts.runs)
    existing = {run.id: run for run in runs}
    found = []
    for wanted in ids:
        name = Path(wanted).name
        matches = [run for id_, run in existing.items() if id_.startswith(name)]
        damaged = [place for place in unreadable if place.path.name.startswith(name)]
        if damaged and not matches:
            raise damaged[0].error
        if len(matches) != 1:
            several = f"{wanted!r} begins the ids of {len(matches)} runs: {', '.join(run.id for run in matches)}"
            raise PipelineError(
                several if matches else f"no run in {artifacts.runs} has an id that begins with {wanted!r}",
                "see `pipeline runs list` for the ids",
            )
        found.append(matches[0])
    return found
