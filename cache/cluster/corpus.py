"""Texts in Parquet files that no machine needs to hold: their list, their number, and where a bad one lies.

Only footers are read here. The texts are read on the cluster (`cache.cluster.reading`); a file is read on the driver
once more only to say in which row of it a text is that cannot be embedded.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cache.cluster.connection import import_ray
from cache.errors import CacheError
from cache.lookup import check_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

_BATCH = 1 << 14


@dataclass(frozen=True)
class Corpus:
    """The column `column` of Parquet files with `rows` rows in all.

    `files` are paths in their file system, in the order in which they are read; `address` is the content address of
    their names and sizes, 12 hex digits (not of their texts: these are not read here).
    """

    name: str
    files: tuple[str, ...]
    column: str
    rows: int
    address: str
    columns: tuple[str, ...]
    filesystem: Any = None


def open_corpus(source: str | Sequence[str], column: str = "text") -> Corpus:
    """Return the corpus of a Parquet file, a folder of them, a glob pattern, a URL of either, or a list of files.

    :raises CacheError: there is no such file, or it is not Parquet; the column is missing or does not hold strings.
    """
    import_ray("ray.data")  # brings pyarrow, or says what to install
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
    return _checked(first, [path for path, _ in files], [size for _, size in files], column, filesystem)


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


def _checked(source: str, files: list[str], sizes: list[int], column: str, filesystem: Any) -> Corpus:
    from pyarrow import ArrowException, dataset, types

    try:
        opened = dataset.dataset(files, format="parquet", filesystem=filesystem)
        schema, rows = opened.schema, opened.count_rows()
    except (ArrowException, OSError) as error:
        raise CacheError(f"{source}: {_line(error)}", "name whole Parquet files with the same columns") from error
    if column not in schema.names:
        shown = ", ".join(schema.names[:10])
        raise CacheError(f"{source} has no column {column}; it has {shown}", "name the column of texts with --text")
    kind = schema.field(column).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise CacheError(f"{source}: column {column} holds {kind}, not text", "name the column of texts with --text")
    if not rows:
        raise CacheError(f"{source} has no rows", "give at least one text")
    spelled = "\n".join(f"{PurePosixPath(path).name} {size}" for path, size in zip(files, sizes, strict=True))
    address = blake2b(f"{column}\n{spelled}".encode(), digest_size=6).hexdigest()
    name = PurePosixPath(source.rstrip("/").removesuffix(".parquet")).name.strip("*?[]._-") or "corpus"
    return Corpus(name, tuple(files), column, rows, address, tuple(schema.names), filesystem)


def bad_text(path: str, column: str, filesystem: Any) -> CacheError | None:
    """Return the error for the first text of a file that cannot be embedded, naming its row (the first is row 1)."""
    from pyarrow import parquet

    done = 0
    with parquet.ParquetFile(path, filesystem=filesystem) as file:
        for batch in file.iter_batches(_BATCH, columns=[column]):
            texts = batch.column(0).to_pylist()
            try:
                check_texts(texts, 0)
            except CacheError as error:
                number = next(i for i, text in enumerate(texts) if not _is_good(text))
                what = error.problem.removeprefix(f"text {number} ")
                return CacheError(f"{path}, row {done + number + 1}: the text {what}", error.remedy)
            done += len(texts)
    return None


def _is_good(text: Any) -> bool:
    try:
        check_texts([text], 0)
    except CacheError:
        return False
    return True


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
