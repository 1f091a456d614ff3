"""Texts in Parquet files that no machine needs to hold: which files, how many rows, and in which parts to read them.

Only footers are read here; the texts are read on the cluster (`cache.cluster.reader`), a part a task. A part is whole
row groups of one file, so that one large file is read by many and every row knows its number.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cache.cluster.connection import import_ray
from cache.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FOOTERS_AT_ONCE = 16
_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class File:
    """A Parquet file by its path in its file system, and the rows of each of its row groups."""

    path: str
    groups: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows of the whole file."""
        return sum(self.groups)


@dataclass(frozen=True)
class Part:
    """Row groups of a file that follow one another; `first` is the number of their first row, `rows` how many."""

    path: str
    groups: tuple[int, ...]
    first: int
    rows: int


@dataclass(frozen=True)
class Corpus:
    """The column `column` of Parquet files, in the order in which they are read.

    `address` is the content address of the files' names and sizes, 12 hex digits (not of their texts: those are not
    read here); `columns` are those of the first file.
    """

    name: str
    files: tuple[File, ...]
    column: str
    address: str
    columns: tuple[str, ...]
    filesystem: Any = None

    @property
    def rows(self) -> int:
        """Texts in all."""
        return sum(file.rows for file in self.files)

    def parts(self, rows: int) -> Iterator[Part]:
        """Cut the files into parts of at least `rows` rows, where a file has so many."""
        for file in self.files:
            first = done = 0
            groups: list[int] = []
            for number, count in enumerate(file.groups):
                groups.append(number)
                done += count
                if done - first >= rows or number == len(file.groups) - 1:
                    yield Part(file.path, tuple(groups), first, done - first)
                    groups, first = [], done


def open_corpus(source: str | Sequence[str], column: str = "text") -> Corpus:
    """Return the corpus of a Parquet file, a folder of them, a glob pattern, a URL of either, or a list of files.

    :raises CacheError: there is no such file, or it is not Parquet; the column is missing or does not hold strings.
    """
    import_ray("pyarrow.parquet")  # comes with Ray's data part
    from pyarrow import fs

    first = source if isinstance(source, str) else source[0]
    try:
        if "://" in first:
            filesystem, _ = fs.FileSystem.from_uri(first)
            paths = [fs.FileSystem.from_uri(one)[1] for one in ([source] if isinstance(source, str) else source)]
        else:
            filesystem, paths = None, _local(source)
        files = [one for path in paths for one in _files(filesystem or fs.LocalFileSystem(), path)]
    except (OSError, ValueError, TypeError) as error:
        raise CacheError(f"{first}: {_line(error)}", "name a Parquet file, a folder of them or a pattern") from error
    if not files:
        raise CacheError(f"{first} holds no Parquet file", "name a folder with *.parquet files, or a pattern")
    return _opened(first, files, column, filesystem)


def _local(source: str | Sequence[str]) -> list[str]:
    if not isinstance(source, str):
        return [str(Path(one).resolve()) for one in source]
    path = Path(source)
    if any(mark in source for mark in "*?[") and not path.exists():
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        return sorted(str(found.resolve()) for found in anchor.glob(str(path.relative_to(anchor))))
    return [str(path.resolve())]


def _files(filesystem: Any, path: str) -> list[tuple[str, int]]:
    """Return the Parquet files at or below a path with their sizes, sorted; hidden ones are left out."""
    from pyarrow import fs

    found = filesystem.get_file_info(path)
    if found.type == fs.FileType.File:
        return [(found.path, found.size)]
    inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    return sorted(
        (one.path, one.size)
        for one in inside
        if one.type == fs.FileType.File
        and one.path.endswith(".parquet")
        and not any(part[0] in "._" for part in PurePosixPath(one.path).relative_to(path).parts)
    )


def _opened(source: str, files: Sequence[tuple[str, int]], column: str, filesystem: Any) -> Corpus:
    """Read the footers, a few at a time: on a file system across a network each takes milliseconds."""
    from pyarrow import parquet

    def footer(path: str) -> Any:
        try:
            return parquet.read_metadata(path, filesystem=filesystem)
        except (OSError, ValueError) as error:  # an ArrowInvalid is a ValueError
            raise CacheError(f"{path}: {_line(error)}", "name whole Parquet files") from error

    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        footers = list(pool.map(footer, [path for path, _ in files]))
    made = []
    for (path, _), found in zip(files, footers, strict=True):
        _check_column(path, found.schema.to_arrow_schema(), column)
        made.append(File(path, tuple(found.row_group(i).num_rows for i in range(found.num_row_groups))))
    if not sum(file.rows for file in made):
        raise CacheError(f"{source} has no rows", "give at least one text")
    spelled = "\n".join(f"{PurePosixPath(path).name} {size}" for path, size in files)
    address = blake2b(f"{column}\n{spelled}".encode(), digest_size=6).hexdigest()
    name = _UNSAFE.sub("-", PurePosixPath(source.rstrip("/").removesuffix(".parquet")).name).strip("-._") or "corpus"
    return Corpus(name, tuple(made), column, address, tuple(footers[0].schema.to_arrow_schema().names), filesystem)


def _check_column(path: str, schema: Any, column: str) -> None:
    from pyarrow import types

    if column not in schema.names:
        shown = ", ".join(schema.names[:10])
        raise CacheError(f"{path} has no column {column}; it has {shown}", "name the column of texts with --text")
    kind = schema.field(column).type
    plain = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)):
        raise CacheError(f"{path}: column {column} holds {kind}, not text", "name the column of texts with --text")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
