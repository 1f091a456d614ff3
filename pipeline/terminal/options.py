"""Options that several commands take, each written once."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.workspace.artifacts import DatasetSource


class NumberList(click.ParamType[tuple[Any, ...]]):
    """Comma-separated numbers, such as `1e-4,1e-3`; of kind `int`, such as `42,123`."""

    def __init__(self, kind: type[int] | type[float] = float) -> None:
        self._kind, self.name = kind, "n[,n...]" if kind is int else "x[,x...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """The numbers, in the order given, each once."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(dict.fromkeys(self._kind(part) for part in str(value).split(",")))
        except ValueError:
            whole = "whole " if self._kind is int else ""
            self.fail(f"{value!r} is not a comma-separated list of {whole}numbers", param, ctx)


class NameList(click.ParamType[tuple[str, ...]]):
    """Comma-separated names, each out of a known list where there is one."""

    name = "name[,name...]"

    def __init__(self, known: Callable[[], tuple[str, ...]] | None = None) -> None:
        """`known` gives the allowed names when they are needed, so that help does not import what holds them."""
        self._known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The names, in the order given, each once."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))
        known = self._known() if self._known is not None else names
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            near = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1)]
            meant = f"; did you mean {', '.join(near)}?" if near else ""
            self.fail(f"{', '.join(unknown) or 'nothing'} is not one of {', '.join(known)}{meant}", param, ctx)
        return names


def known_methods() -> tuple[str, ...]:
    """Names of the training methods."""
    from heads.methods import METHODS

    return tuple(METHODS)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _all_of(*options: Decorator) -> Decorator:
    """One decorator of several, in the order in which `--help` shows them."""
    return lambda function: functools.reduce(lambda made, option: option(made), reversed(options), function)


run_options = _all_of(
    click.option("--method", help="Method of the run (default: the one that the kept scores advise)."),
    click.option("--seed", type=int, help="Seed of the run (default: the lowest there is)."),
    click.option("--run", "run_id", help="The run itself, instead of method and seed."),
)
"""Which run a command takes; see `pipeline.stages.run_asked`."""

dataset_argument = click.argument("datasets", nargs=-1, metavar="DATASET...")
"""The dataset: a built-in name, or the files, folder or URL of one's own; see `source_of`."""

loading_options = _all_of(
    click.option("--levels", type=NameList(), help="Label columns, coarsest first. Default: found."),
    click.option("--text", default="text", help="Text column, or several, joined: title,body. Default: found."),
    click.option("--limit", type=click.IntRange(min=1), help="At most so many texts: whole branches of the hierarchy."),
    click.option("--all", "all_rows", is_flag=True, help="icd10cm: all 97,449 distinct descriptions."),
    click.option("--qualify-labels", is_flag=True, help="A label below two parents becomes parent/label."),
    click.option("--drop-incomplete", is_flag=True, help="Leave out rows without a label on every level."),
    click.option("--fill-down", is_flag=True, help="An empty label is that of the row above (merged cells)."),
    click.option("--split", help="Split column, COLUMN:0=train,1=test, or none: they are made. Default: found."),
    click.option("--train", type=NameList(), help="Files of training rows, instead of a split column."),
    click.option("--val", type=NameList(), help="Files of validation rows."),
    click.option("--test", type=NameList(), help="Files of test rows."),
    click.option("--header/--no-header", default=None, help="Whether the first line holds names. Default: found."),
    click.option("--separator", help="Of CSV fields: a character, tab, or none (lines). Default: found."),
    click.option(
        "--quotes",
        type=click.Choice(["doubled", "backslash", "literal"]),
        help='A quotation mark in a CSV field is "", \\", or a plain character. Default: found.',
    ),
    click.option("--encoding", help="Of text files, such as cp1252. Default: found."),
    click.option("--path-separator", help="Of label paths in one column (A > B), list, or none. Default: found."),
    click.option("--code", help="Column of codes whose first characters are the levels; see --digits."),
    click.option("--digits", type=NumberList(int), help="Characters of the code per level: 2,4,6."),
    click.option("--names", type=NameList(), help="Files with the names of label ids: FILE or LEVEL=FILE."),
    click.option("--hierarchy", help="File with the parents of labels: JSON, TOML, or a table of edges."),
    click.option("--label", help="first: the first of several labels of a text."),
)
"""Options that say how a dataset is loaded; `split_loading` takes them out of the rest."""

LOADING = ("levels", "text", "limit", "all_rows", "qualify_labels", "drop_incomplete")


def split_loading(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of `loading_options`, as arguments of `DatasetSource`, and the rest. Files become absolute paths."""
    import data
    from pipeline.workspace.artifacts import lasting_source

    describing = {one.name for one in fields(data.Description)} - set(LOADING)
    said = {name: value for name, value in options.items() if name in describing and value is not None}
    for name in ("train", "val", "test"):
        if name in said:
            said[name] = tuple(map(lasting_source, said[name]))
    if "hierarchy" in said:
        said["hierarchy"] = lasting_source(said["hierarchy"])
    if "names" in said:
        parts = (one.rpartition("=") for one in said["names"])
        said["names"] = tuple(f"{level}{mark}{lasting_source(file)}" for level, mark, file in parts)
    loading = {name: options[name] for name in LOADING}
    rest = {name: value for name, value in options.items() if name not in {*LOADING, *describing}}
    return {**loading, "description": data.Description(**said)}, rest


def source_of(datasets: tuple[str, ...], loading: dict[str, Any]) -> DatasetSource:
    """How to load what was typed: the first of `datasets` with the others as further files, or the files of --train.

    :raises click.UsageError: if nothing was named.
    """
    from pipeline.workspace.artifacts import DatasetSource, lasting_source

    description = loading["description"]
    files = tuple(map(lasting_source, datasets)) or description.train
    if not files:
        raise click.MissingParameter(param_hint="'DATASET...'", param_type="argument")
    return DatasetSource(
        files[0], **loading | {"description": replace(description, files=files[1:] if datasets else ())}
    )


coarse_option = click.option(
    "--make-coarse",
    type=click.IntRange(min=2),
    metavar="N",
    help="Derive a coarse level of N classes from the features of one level's classes; written out to be edited.",
)
"""Whether a coarse level is made where there is one level alone."""

embedding_options = _all_of(
    click.option(
        "--backbone",
        help="Name, hub id or path of any Hugging Face encoder. Default: qwen3-embedding-0.6b; where the hub does "
        "not answer, minilm, which the extra offline installs.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        show_default=True,
        help="Computing dtype; auto takes the stored one, else the fastest on this hardware.",
    ),
    click.option(
        "--devices",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda, all GPUs of the host, some (cuda:0,cuda:2), or cpu:2 for two processes.",
    ),
)
"""Options of the frozen backbone's pass."""

engine_options = _all_of(
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="ray: on a Ray cluster whose nodes share --artifacts; needs the extra [ray].",
    ),
    click.option(
        "--ray-address", help="Of a running cluster, or auto. Default: RAY_ADDRESS, else one is started here and ended."
    ),
)
"""Who computes: this machine or a cluster."""

reading_options = _all_of(
    click.option("--pooling", type=click.Choice(["last", "mean", "cls"]), help="Default: as the checkpoint says."),
    click.option("--prompt", help="Put before every text. Default: the checkpoint's own, if any."),
    click.option("--end-token", help="Appended to every text: a special token, its id, or none."),
    click.option(
        "--endpoint",
        metavar="URL",
        help="Server of the OpenAI embeddings protocol, with --backbone openai:MODEL; key from OPENAI_API_KEY.",
    ),
)
"""Options that say how a backbone is read, in place of what its files say; each is part of the fingerprint."""


def fitting_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the fit that every command that trains heads takes."""
    from heads.methods import SCHEDULES  # here: commands that fit nothing need no heads
    from heads.presets import PRESETS

    return _all_of(
        click.option("--seeds", type=NumberList(int), default="42", show_default=True, help="Trained together."),
        click.option("--head", type=click.Choice(tuple(PRESETS)), help="Head preset; default: the method's own."),
        click.option("--epochs", type=click.IntRange(min=1), help="Default: the method's published setting."),
        click.option("--batch-size", type=click.IntRange(min=2), help="Default: the method's published setting."),
        click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Learning rate; default likewise."),
        click.option("--schedule", type=click.Choice(SCHEDULES), help="Of the learning rate; default likewise."),
    )(function)


force_option = click.option("--force", is_flag=True, help="Replace a file that is already there.")
"""Whether what stands where a command writes may be replaced."""

bits_option = click.option(
    "--bits", is_flag=True, help="With --embeddings: bytes that hold eight signs each, as numpy.packbits makes them."
)
"""How bytes are read."""

backbone_options = _all_of(
    click.option("--dataset", help="Dataset: name, id or path (default: what `embed` used last)."),
    click.option("--backbone", help="Backbone: name, hub id or path (default: what `embed` used last)."),
    click.option("--layer", type=int, default=-1, show_default=True, help="Layer whose features are used."),
)
"""Options that say which stored features a command works on."""
