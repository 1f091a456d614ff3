"""Texts in Parquet files that no machine needs to hold: which files, and how many rows. Only footers are read here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

from cache.cluster.connection import import_ray, quiet_data
from cache.errors import CacheError, one_line
from cache.lookup import check_texts

_FOOTERS_AT_ONCE = 16
_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class RowGroup:
    """A row group of a file, and the row of the file that it begins with."""

    path: str
    number: int
    first: int


@dataclass(frozen=True)
class Corpus:
    """The column `column` of Parquet files, by row groups in their file system, with `rows` texts in all.

    `address` is the content address of the files' names and sizes, 12 hex digits (not of their texts: those are not
    read here); `columns` are those of the first file.
    """

    name: str
    groups: tuple[RowGroup, ...]
    rows: int
    column: str
    address: str
    columns: tuple[str, ...]
    filesystem: Any = None

    def dataset(self, blocks: int) -> Any:
        """Return the Ray dataset of the texts, one column, read on the cluster in about so many tasks.

        Not `ray.data.read_parquet`: it knows no row's number, and its threads fail on one another's half-made imports
        where aiohttp is not installed (Ray 2.60).
        """
        data = quiet_data()
        source = data.from_items(
            [asdict(group) for group in self.groups], override_num_blocks=min(blocks, len(self.groups))
        )
        arguments = {"column": self.column, "filesystem": self.filesystem}
        # a task that has read ahead keeps its share of a processor: with whole ones a lost block might never be remade
        return source.map_batches(
            read_groups, fn_kwargs=arguments, batch_size=None, batch_format="pyarrow", num_cpus=0.25
        )


def read_groups(table: Any, column: str, filesystem: Any) -> Iterator[Any]:
    """Run in a task: yield the texts of row groups.

    :raises CacheError: a text that cannot be embedded, by file and row (the first is row 1).
    """
    import pyarrow as pa
    from pyarrow import parquet

    for group in table.to_pylist():
        with parquet.ParquetFile(group["path"], filesystem=filesystem) as file:
            texts = file.read_row_group(group["number"], columns=[column]).column(0).to_pylist()
        try:
            check_texts(texts, group["first"] + 1)
        except CacheError as error:
            _, row, what = error.problem.split(" ", 2)
            raise CacheError(f"{group['path']}, row {row}: the text {what}", error.remedy) from None
        yield pa.table({"text": pa.array(texts, pa.large_string())})


def open_corpus(source: str, column: str = "text") -> Corpus:
    """Return the corpus of a Parquet file, a folder of them, a glob pattern, or a URL of either.

    :raises CacheError: there is no such file, or it is not Parquet; the column is missing or does not hold strings.
    """
    import_ray("pyarrow.parquet")  # comes with Ray's data part
    from pyarrow import fs

    try:
        if "://" in source:
            filesystem, path = fs.FileSystem.from_uri(source)
            paths = [path]
        else:
            filesystem, paths = None, _local(source)
        files = [one for path in paths for one in _files(filesystem or fs.LocalFileSystem(), path)]
    except (OSError, ValueError, TypeError) as error:
        raise CacheError(
            f"{source}: {one_line(error)}", "name a Parquet file, a folder of them or a pattern"
        ) from error
    if not files:
        raise CacheError(f"{source} holds no Parquet file", "name a folder with *.parquet files, or a pattern")
    return _opened(source, files, column, filesystem)


def _local(source: str) -> list[str]:
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
            raise CacheError(f"{path}: {one_line(error)}", "name whole Parquet files") from error

    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        footers = list(pool.map(footer, [path for path, _ in files]))
    for (path, _), found in zip(files, footers, strict=True):
        _check_column(path, found.schema.to_arrow_schema(), column)
    rows = sum(found.num_rows for found in footers)
    if not rows:
        raise CacheError(f"{source} has no rows", "give at least one text")
    spelled = "\n".join(f"{PurePosixPath(path).name} {size}" for path, size in files)
    address = blake2b(f"{column}\n{spelled}".encode(), digest_size=6).hexdigest()
    name = _UNSAFE.sub("-", PurePosixPath(source.rstrip("/").removesuffix(".parquet")).name).strip("-._") or "corpus"
    columns = tuple(footers[0].schema.to_arrow_schema().names)
    groups = [
        RowGroup(path, number, sum(found.row_group(i).num_rows for i in range(number)))
        for (path, _), found in zip(files, footers, strict=True)
        for number in range(found.num_row_groups)
    ]
    return Corpus(name, tuple(groups), rows, column, address, columns, filesystem)


def _check_column(path: str, schema: Any, column: str) -> None:
    from pyarrow import types

    if column not in schema.names:
        shown = ", ".join(schema.names[:10])
        raise CacheError(f"{path} has no column {column}; it has {shown}", "name the column of texts with --text")
    kind = schema.field(column).type
    plain = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)):
        raise CacheError(f"{path}: column {column} holds {kind}, not text", "name the column of texts with --text")
