"""Parquet and Excel files into records, read by polars: both say where a record ends, so none can be lost.

Values become text as polars writes them; Parquet's columns that can be neither texts nor labels (vectors, bytes that
are no UTF-8) are left unread. Excel needs the package fastexcel; the sheet with most rows is read, or all of them where
their names are splits.
"""

from __future__ import annotations

import json

import polars as pl
from polars.datatypes import DataTypeClass

from data.errors import DataError, counted, listed, quoted
from data.files.locate import is_url
from data.files.records import FileFormat, Kind, KindName, Records, lines_above, with_names
from data.splits import split_of_word

_Dtype = pl.DataType | DataTypeClass
_WORDS = (pl.String, pl.Categorical, pl.Enum, pl.Null)


def open_parquet(source: str, place: str, format: FileFormat) -> Records:
    """Read a Parquet file, or the files that a pattern in a URL names."""
    lazy = pl.scan_parquet(place, glob=is_url(place))
    schema = lazy.collect_schema()
    written = {name for name, dtype in schema.items() if dtype == pl.Binary and _is_utf8(lazy.select(name))}
    kinds: dict[str, tuple[Kind, ...]] = {}
    wanted: list[pl.Expr] = []
    for name, dtype in schema.items():
        if isinstance(dtype, pl.Struct):
            fields = [
                (f"{name}.{field.name}", field.dtype, pl.col(name).struct.field(field.name)) for field in dtype.fields
            ]
        else:
            value = pl.col(name).cast(pl.String) if name in written else pl.col(name)
            fields = [(name, pl.String() if name in written else dtype, value)]
        for column, kind, expression in fields:
            wanted.append(_as_text(expression, kind).alias(column))
            if kind not in _WORDS:
                kinds[column] = (Kind(_kind(kind), 1, str(kind)),)
    frame = lazy.select(wanted).collect() if wanted else lazy.select(pl.len()).collect().clear()
    return Records(source, frame, pl.int_range(1, frame.height + 1, eager=True), kinds)


def _is_utf8(column: pl.LazyFrame) -> bool:
    try:
        column.cast(pl.String).collect()
    except pl.exceptions.ComputeError:
        return False
    return True


def _kind(dtype: _Dtype) -> KindName:
    if dtype == pl.Boolean:
        return "truth value"
    if dtype.is_numeric() or (dtype.is_temporal() and dtype != pl.Duration):  # which polars writes as no text
        return "number"
    return "list" if _is_list_of_words(dtype) else "other"


def _is_list_of_words(dtype: _Dtype) -> bool:
    return isinstance(dtype, pl.List) and (dtype.inner in _WORDS or dtype.inner.is_integer())


def _as_text(expression: pl.Expr, dtype: _Dtype) -> pl.Expr:
    if _is_list_of_words(dtype):
        return expression.cast(pl.List(pl.String)).map_elements(
            lambda values: json.dumps(values.to_list(), ensure_ascii=False), return_dtype=pl.String
        )
    if _kind(dtype) == "other" and dtype not in _WORDS:
        return pl.lit(None, dtype=pl.String)
    return expression.cast(pl.String)


def open_excel(source: str, place: str, format: FileFormat) -> Records:
    """Read an Excel or OpenDocument file.

    :raises DataError: if the package for it is missing, or no sheet holds anything.
    """
    try:
        import fastexcel
    except ImportError as error:
        problem = f"{source} needs the package fastexcel, which is not installed"
        raise DataError(problem, "pip install fastexcel") from error
    try:
        sheets = pl.read_excel(
            place, sheet_id=0, has_header=False, infer_schema_length=0, drop_empty_rows=False, raise_if_empty=False
        )
    except fastexcel.FastExcelError as error:
        raise OSError(str(error).split("\n", 1)[0]) from error
    filled = {name: sheet for name, sheet in sheets.items() if sheet.height}
    if not filled:
        raise DataError(f"{source} is empty", "give it a header and rows")
    notes: list[str] = []
    header = format.header is not False
    above = {name: lines_above(sheet.head(300).rows()) if header else 0 for name, sheet in filled.items()}
    if any(above.values()):
        notes.append(f"{source}: {counted(max(above.values()), 'row')} above the names of the columns left out")
    splits = len(filled) > 1 and all(split_of_word(name) for name in filled)
    if splits:
        notes.append(f"{source}: the sheets {listed(filled, len(filled))} are the splits")
    elif len(filled) > 1:
        longest = max(filled, key=lambda name: filled[name].height)
        others = listed((quoted(name) for name in filled if name != longest), len(filled) - 1)
        notes.append(f"{source}: the sheet {quoted(longest)}, which has most rows, is read; left out: {others}")
        filled = {longest: filled[longest]}
    frames, numbers = [], []
    for name, sheet in filled.items():
        frame, own = _sheet(source, sheet[above[name] :], header)
        frames.append(frame.with_columns(split=pl.lit(name)) if splits else frame)
        numbers.append(own)
    frame = pl.concat(frames, how="diagonal")
    return Records(source, frame, pl.concat(numbers), notes=tuple(notes), named=header)


def _sheet(source: str, sheet: pl.DataFrame, header: bool) -> tuple[pl.DataFrame, pl.Series]:
    """Return a sheet's named columns and row numbers; rows without any value are skipped but counted."""
    sheet = with_names(source, sheet, header)
    sheet = sheet.with_columns(pl.when(pl.all().str.strip_chars() != "").then(pl.all()))
    filled = sheet.select(~pl.all_horizontal(pl.all().is_null())).to_series()
    return sheet.filter(filled), filled.arg_true().cast(pl.Int64) + 1
