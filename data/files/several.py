"""Several files as one: parts, one per split, or texts and labels line by line beside one another.

A folder is the files in it that can be read. Files whose names say train and test are splits; files of one column each
with the same number of records are columns, called after their files; all others must have the same columns and follow
one another.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path, PurePosixPath

import polars as pl

from data.errors import DataError, listed, quoted
from data.files.class_folders import read_text_files, text_files
from data.files.locate import in_archive, is_there, is_url, local, stem, suffix_of
from data.files.read import FORMATS, open_source
from data.files.records import FileFormat, Kind, Records, first_line_as_row, has_no_header
from data.splits import FILE_SPLIT, split_of_word

_ASIDE = re.compile(
    r"readme|licen[cs]e|citation|requirements|hierarchy|taxonomy|classes|label_?names|domains|mapping|names|.*\.out$"
)


def read_files(
    sources: Sequence[str], format: FileFormat | None = None, splits: Mapping[str, Sequence[str]] | None = None
) -> Records:
    """Return the records of all files, with the column `FILE_SPLIT` where the files say the splits.

    `sources`: paths, patterns, folders, URLs. `splits`: split -> further files of that split, which are then said.

    :raises DataError: if a file cannot be read, or the files do not go together.
    """
    format = format or FileFormat()
    notes: list[str] = []
    places: list[tuple[str, str | None]] = []
    for source in sources:
        folder = _is_folder(source)
        if folder and len(sources) == 1 and not splits and (texts := text_files(source)):
            return read_text_files(source, texts, format)
        found = _in_folder(source, notes) if folder or _is_archive(source) else _expanded(source)
        places += zip(found, repeat(None))
    for named, files in (splits or {}).items():
        for file in files:
            places += zip(_expanded(file), repeat(named))
    if len(places) == 1 and places[0][1] is None:
        only = open_source(places[0][0], format)
        return replace(only, notes=(*notes, *only.notes))
    if not splits:
        places = _split_by_name([place for place, _ in places])
        if places[0][1] is not None:
            said = ", ".join(f"{PurePosixPath(place).name}: {split}" for place, split in places)
            notes.append(f"splits are in files of their own ({said})")
    groups: dict[str | None, list[Records]] = {}
    for place, split in places:
        groups.setdefault(split, []).append(open_source(place, format))
    if _are_parallel(groups):
        said = listed((PurePosixPath(place).name for place, _ in places), len(places))
        notes.append(f"files that hold one column each, line by line: {said}")
        joined = {split: [_beside(parts)] for split, parts in groups.items()}
    else:
        joined = groups
    parts = [_with_split(part, split) for split, members in joined.items() for part in members]
    return _one_after_another(parts, tuple(notes))


def common_name(sources: Sequence[str]) -> str:
    """Return the dataset's name: that of its first file without the word for its split, or of its folder."""
    first = sources[0]
    name = stem(first)
    if len(sources) == 1 and not _is_folder(first):
        return name
    rest = [word for word in re.split(r"[^\w]+|_", name) if word and not split_of_word(word)]
    if rest and (len(sources) > 1):
        return "-".join(rest)
    folder = Path(first) if _is_folder(first) else Path(first).absolute().parent
    return folder.absolute().name if not is_url(first) else name


def _expanded(source: str) -> list[str]:
    """Return the files that a pattern such as ``part-*.csv`` names, sorted; anything else as it is."""
    if is_url(source) or is_there(source) or in_archive(source):
        return [source]
    pattern = local(source)
    try:
        found = sorted(str(path) for path in Path(pattern.anchor or ".").glob(str(pattern.relative_to(pattern.anchor))))
    except (OSError, ValueError, NotImplementedError):
        return [source]
    return [path for path in found if Path(path).is_file()] or [source]


def _is_folder(source: str) -> bool:
    return not is_url(source) and is_there(source) and Path(source).expanduser().is_dir()


def _is_archive(source: str) -> bool:
    """Whether `source` is a ``.zip`` file whose own name does not say the kind of the one file in it."""
    return not is_url(source) and is_there(source) and source.endswith(".zip") and suffix_of(source) not in FORMATS


def _in_folder(folder: str, notes: list[str]) -> list[str]:
    if _is_archive(folder):
        with zipfile.ZipFile(str(local(folder))) as archive:
            everything = [Path(folder) / name for name in sorted(archive.namelist()) if not name.endswith("/")]
    else:
        everything = [path for path in sorted(Path(folder).expanduser().rglob("*")) if path.is_file()]
    found = [
        path
        for path in everything
        if suffix_of(path.name) in FORMATS and not path.name.startswith(".") and "__MACOSX" not in path.parts
    ]
    splits = [path for path in found if _split_of_file(str(path))]
    kept = splits if len({_split_of_file(str(path)) for path in splits}) > 1 else found
    kept = [path for path in kept if not _ASIDE.search(_bare(path))] or kept
    if not kept:
        raise DataError(
            f"{folder} is a directory without files that can be read", f"put files of {', '.join(FORMATS)} in it"
        )
    left = [path.name for path in found if path not in kept]
    if left:
        notes.append(
            f"not read in {folder}: {listed(left, len(left))} (names of labels: --names, parents: --hierarchy)"
        )
    return [str(path) for path in kept]


def _bare(path: Path) -> str:
    """Return the name that says what a file is for, lower case: ``seq.out`` (tags per token) keeps its ending."""
    return path.name.lower() if path.suffix.lower() == ".out" else path.stem.lower()


def _split_of_file(place: str) -> str | None:
    """Return the split that a file's name says, or the folder that it lies in."""
    words = re.split(r"[^a-z]+", stem(place).lower())
    found = {split for word in words if (split := split_of_word(word))}
    if not found and not is_url(place):
        found = {split for split in [split_of_word(Path(place).parent.name)] if split}
    return found.pop() if len(found) == 1 else None


def _split_by_name(places: list[str]) -> list[tuple[str, str | None]]:
    splits = [_split_of_file(place) for place in places]
    if None in splits or len(set(splits)) < 2:
        return list(zip(places, repeat(None)))
    return list(zip(places, splits, strict=True))


def _are_parallel(groups: Mapping[str | None, list[Records]]) -> bool:
    """Whether each split has several files of one column with as many records, no two of them headed alike."""
    for parts in groups.values():
        heights = {part.frame.height for part in parts}
        heads = {part.frame.columns[0] for part in parts if part.named and part.frame.width}
        if len(parts) < 2 or len(heights) > 1 or any(part.frame.width != 1 for part in parts):
            return False
        if any(part.named for part in parts) and len(heads) < len(parts):
            return False
    return True


def _role(source: str) -> str:
    """Return what a file of one column is called without the word for its split."""
    words = [word for word in re.split(r"[^\w]+|_", stem(source)) if word and not split_of_word(word)]
    return "_".join(words) or stem(source)


def _beside(parts: list[Records]) -> Records:
    names = [part.frame.columns[0] if part.named else _role(part.source) for part in parts]
    if len(set(names)) < len(names):
        raise DataError(f"files of one column with one name: {listed(names)}", "name the files by what they hold")
    columns = [part.frame.to_series().alias(name) for part, name in zip(parts, names, strict=True)]
    kinds = {name: kind for part, name in zip(parts, names, strict=True) for kind in part.kinds.values()}
    first = parts[0]
    return Records(
        listed([part.source for part in parts], len(parts)),
        pl.DataFrame(columns),
        first.numbers,
        kinds,
        tuple(note for part in parts for note in part.notes),
    )


def _with_split(part: Records, split: str | None) -> Records:
    if split is None:
        return part
    return replace(part, frame=part.frame.with_columns(pl.lit(split).alias(FILE_SPLIT)))


def _shown(parts: list[Records]) -> list[str]:
    return [column for column in parts[0].frame.columns if column != FILE_SPLIT]


def _all_without_header(parts: list[Records]) -> list[Records] | None:
    """Return the parts with their first lines as rows, if these differ in files that are alike and one of them is one.

    Names of columns are the same in all files; rows that stand first are not.
    """
    heads = [_shown([part]) for part in parts]
    alike = all(part.named and len(head) == len(heads[0]) for part, head in zip(parts, heads, strict=True))
    if not alike or any(set(head) == set(heads[0]) for head in heads[1:]):
        return None
    return [first_line_as_row(part, FILE_SPLIT) for part in parts] if any(map(has_no_header, parts)) else None


def _said_once(parts: list[Records]) -> tuple[str, ...]:
    """Return the notes of all parts: what is said of several files is one note that names them."""
    said: dict[tuple[bool, str], list[str]] = {}
    for part in parts:
        for note in part.notes:
            rest = note.removeprefix(part.source)
            said.setdefault((rest != note, rest), []).append(part.source)
    return tuple(listed(sources) + rest if of_file else rest for (of_file, rest), sources in said.items())


def _one_after_another(parts: list[Records], notes: tuple[str, ...]) -> Records:
    """Return the records of all parts, numbered by file where there are several."""
    notes += _said_once(parts)
    if len(parts) == 1:
        return replace(parts[0], notes=notes)
    if rows := _all_without_header(parts):
        parts, notes = rows, (*notes, f"no file has names in its first line: columns are {', '.join(_shown(rows))}")
    first = parts[0].frame.columns
    for part in parts[1:]:
        if set(part.frame.columns) != set(first):
            only = sorted(set(part.frame.columns) ^ set(first))
            raise DataError(
                f"{parts[0].source} and {part.source} have different columns: {listed(map(quoted, only), len(only))} "
                "in one of them only",
                "give the files the same columns (if the first line is a row: --no-header)",
            )
    kinds: dict[str, tuple[Kind, ...]] = {}
    for part in parts:
        for column, found in part.kinds.items():
            kinds[column] = kinds.get(column, ()) + found
    numbers = [
        pl.select(pl.format("{} of {}", part.numbers, pl.lit(PurePosixPath(part.source).name))).to_series()
        for part in parts
    ]
    return Records(
        listed([part.source for part in parts]),
        pl.concat([part.frame.select(first) for part in parts]),
        pl.concat(numbers),
        kinds,
        notes,
        tuple(number for part in parts for number in part.short),
        all(part.named for part in parts),
    )
