"""How a user's own files are understood: what was said by options or in a TOML file; everything else is found out.

A TOML file is given as the dataset itself, or lies beside the file under the same name (``tickets.csv``,
``tickets.toml``); its keys are the options' names. Options win over it.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast, get_args

from data.errors import DataError, listed, quoted
from data.files.locate import is_there, is_url, local
from data.files.records import FileFormat, Quotes, spelled_as


@dataclass(frozen=True)
class Description:
    """What is known about files, fields as `pipeline data check --help` explains their options; None: found out.

    `text`: columns that are joined to one text. `levels`: columns of labels, coarsest first. `files`: further files
    beside the first; `train`, `val`, `test`: files that are one split each. `split`: the split column, "none" for made
    splits. `path_separator`: what separates a path in a label cell, "none" for no paths, "list" for lists.
    `code`, `digits`: a column of codes and how many of their characters each level has. `names`: files that give ids
    their names, ``FILE`` or ``LEVEL=FILE``. `hierarchy`: a file with the parents of labels.
    `label`: the column of labels, or "first" for the first of several labels. `fill_down`: whether an empty label is
    that of the row above.
    """

    text: tuple[str, ...] | None = None
    levels: tuple[str, ...] | None = None
    files: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    split: str | None = None
    header: bool | None = None
    separator: str | None = None
    quotes: str | None = None
    encoding: str | None = None
    path_separator: str | None = None
    code: str | None = None
    digits: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    hierarchy: str | None = None
    label: str | None = None
    qualify_labels: bool = False
    drop_incomplete: bool = False
    fill_down: bool = False

    @property
    def format(self) -> FileFormat:
        """How the files are written.

        :raises DataError: if there is no such way to write quotation marks.
        """
        if self.quotes not in (None, *get_args(Quotes)):
            raise DataError(f"quotes {quoted(self.quotes)}", f"use one of {', '.join(get_args(Quotes))}")
        return FileFormat(self.separator, cast(Quotes | None, self.quotes), self.encoding, self.header)

    @property
    def split_files(self) -> dict[str, tuple[str, ...]]:
        """Split -> its files, of those that have some."""
        return {name: files for name in ("train", "val", "test") if (files := getattr(self, name))}

    def files_of_no_split(self, source: str) -> list[str]:
        """Return `source` and the further files, or nothing where all of them are said to be one split each.

        :raises DataError: if some are and some are not.
        """
        of_splits = {_place(file) for file in (*self.train, *self.val, *self.test)}
        if not of_splits:
            return [source, *self.files]
        others = [file for file in (source, *self.files) if _place(file) not in of_splits]
        if source in others and not is_url(source) and (local(source) / "dataset.toml").is_file():
            others.remove(source)  # a folder whose description names the files
        if others:
            raise DataError(
                f"{listed(others, len(others))}: no split is given, while other files are given as one split each",
                "name its split too, with --train, --val or --test, or leave it out",
            )
        return others

    @property
    def first_label(self) -> bool:
        """Whether the first of several labels of a text is to be taken."""
        return self.label in ("first", "primary")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are named as texts, labels or codes."""
        return (*(self.text or ()), *(self.levels or ()), *([self.code] if self.code else []))

    @property
    def said(self) -> dict[str, Any]:
        """The fields that say something."""
        return {
            one.name: value for one in fields(self) if (value := getattr(self, one.name)) not in (one.default, None, ())
        }

    @property
    def words(self) -> list[str]:
        """The options that say this, words of a shell."""
        found: list[str] = []
        for name, value in self.said.items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                found.append(f"--{option}" if value else f"--no-{option}")
            elif name != "files":
                found += [f"--{option}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
        return found

    def spelled_as(self, columns: Sequence[str]) -> Description:
        """Return this description with columns called as `columns` spell them."""
        single = {one: name for one in ("split", "code", "label") if (name := getattr(self, one))}
        several = {one: names for one in ("text", "levels") if (names := getattr(self, one))}
        spelled: dict[str, Any] = {one: spelled_as(columns, names) for one, names in several.items()}
        spelled |= {one: spelled_as(columns, [name])[0] for one, name in single.items()}
        return replace(self, **spelled)

    def over(self, other: Description) -> Description:
        """Return this description where it says something, else `other`."""
        return replace(other, **self.said)


def _place(file: str) -> str:
    """One spelling of a file's name; one that no file can have is told where it is read."""
    try:
        return file if is_url(file) else str(local(file).resolve())
    except (OSError, ValueError):
        return file


def described(source: str, given: Description) -> tuple[str, Description, tuple[str, ...]]:
    """Return the source, the description that holds for it, and a note: `given` over the TOML file, if there is one.

    :raises DataError: if the TOML file cannot be read or has a key that is none.
    """
    if is_url(source):
        return source, given, ()
    path = local(source)
    if path.suffix.lower() == ".toml":
        found = _read(path)
        files = found.files or found.train
        if not files:
            raise DataError(f"{path} names no files", 'add a line such as files = ["tickets.csv"]')
        return files[0], given.over(replace(found, files=found.files[1:])), ()
    beside = path / "dataset.toml" if is_there(source) and path.is_dir() else path.with_suffix(".toml")
    if is_there(str(beside)) and beside != path:
        found = _read(beside)
        further = tuple(file for file in found.files if local(file).resolve() != path.resolve())
        return source, given.over(replace(found, files=further)), (f"described by {beside}",)
    return source, given, ()


def _read(path: Path) -> Description:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as TOML: {error}", "correct it, or give the options instead") from error
    known = {one.name: str(one.type) for one in fields(Description)}
    values = {name.replace("-", "_"): value for name, value in values.items()}
    if unknown := sorted(set(values) - known.keys()):
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise DataError(
            f"{path}: {quoted(unknown[0])} is no key of a description", f"{meant}keys are {', '.join(sorted(known))}"
        )
    if isinstance(values.get("hierarchy"), dict):
        values["hierarchy"] = path.name
    made = {name: _of_type(value, known[name], f"{path}: {name}") for name, value in values.items()}
    for name in ("files", "train", "val", "test"):
        if name in made:
            made[name] = tuple(_beside(path, one) for one in made[name])
    if "hierarchy" in made:
        made["hierarchy"] = _beside(path, made["hierarchy"])
    if "names" in made:
        made["names"] = tuple(
            "=".join([*one.split("=")[:-1], _beside(path, one.split("=")[-1])]) for one in made["names"]
        )
    return Description(**made)


def _of_type(value: Any, annotation: str, place: str) -> Any:
    """Return a value of TOML as a field with this annotation has it; one alone is a list of one."""
    wanted: type = next(one for one in (int, bool, str) if one.__name__ in annotation)
    several = "tuple" in annotation
    found = value if several and isinstance(value, list) else [value]
    if any(type(one) is not wanted for one in found):
        name = {int: "a whole number", bool: "true or false", str: "a string"}[wanted]
        raise DataError(f"{place} is {quoted(value)}", f"write {name}{', or a list of such' if several else ''}")
    return tuple(found) if several else value


def _beside(path: Path, name: str) -> str:
    return name if is_url(name) else str(path.parent / Path(name).expanduser())
