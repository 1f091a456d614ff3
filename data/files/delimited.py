r"""CSV, TSV and their relatives into records: as many records out as there are in the file, or an error with the row.

Read by Python's csv module in strict mode, in chunks, at half a million records per second. polars is three times as
fast, but read 376 records where there were 575, because a quotation mark was escaped by a backslash. Three checks make
sure that no record is lost: strict mode refuses a quoted field that goes on after its closing mark; no record may have
more fields than the header; and a quoted field with line breaks must not contain further records
(`data.files.swallowed`). A file that fails is read again with ``\"`` as an escaped mark, as Spark writes it, and, where
tabs separate it, with marks as plain characters. A note says which reading holds.
"""

from __future__ import annotations

import contextlib
import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import polars as pl

from data.errors import DataError, counted, listed, quoted
from data.files.labelled_lines import labelled
from data.files.locate import suffix_of
from data.files.records import FileFormat, Quotes, Records, lines_above, with_names
from data.files.stream import Stream, open_stream
from data.files.swallowed import Candidate, candidate, first_swallowing

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
"""Separators that are looked for, and their names."""

_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_CHUNK = 20_000
_SAMPLE = 300
_ESCAPED = re.compile(r'(?<!\\)((?:\\\\)*)\\"')
_CLOSED = re.compile(r'(?<!\\)((?:\\\\)+)"')
_MARK = "\ue000"  # an escaped quotation mark, while the csv module reads

csv.field_size_limit(sys.maxsize)  # the module's own limit of 131,072 characters would refuse long texts


def open_delimited(source: str, place: str, format: FileFormat) -> Records:
    """Read a file of separated fields; without a separator each line of a ``.txt`` file is a record of one field.

    :raises DataError: if it is empty, or a record cannot be read with certainty; names the row and its line.
    """
    stream = open_stream(source, place, format.encoding)
    if stream.empty:
        raise DataError(f"{source} is empty", "give it a header and rows")
    if suffix_of(source) == ".txt" and format == FileFormat(encoding=format.encoding):
        lines = [line.rstrip("\r\n") for line in stream.lines()]
        if found := labelled(lines, source):
            said = tuple(note for note in (stream.note, found[1]) if note)
            return Records(source, found[0], pl.int_range(1, len(lines) + 1, eager=True), notes=said)
    sample = stream.head(_SAMPLE)
    above = _above(sample, format) if format.header is not False else 0
    if above:
        stream = replace(stream, skipped=above)
        sample = stream.head(_SAMPLE)
    separator, note = _separator(source, sample, format.separator)
    notes = [note for note in (stream.note, note) if note]
    if above:
        notes.append(f"{source}: {counted(above, 'line')} above the names of the columns left out")
    lines_only = not separator and (suffix_of(source) == ".txt" or format.separator == "none")
    header = format.header if format.header is not None else not lines_only
    if lines_only:
        fields = _lines(stream, 0 if header else 1)
    else:
        fields, note = _read_with_certainty(stream, sample, separator or ",", format.quotes, 0 if header else 1)
        notes += [note] if note else []
    return _named(stream, fields, header, notes)


@dataclass(frozen=True)
class _Fields:
    """Records as read: columns without names, the number of each record, and the numbers of those that are short."""

    columns: pl.DataFrame
    numbers: pl.Series
    short: tuple[int, ...] = ()


def _lines(stream: Stream, first: int) -> _Fields:
    values = pl.Series("0", [line.rstrip("\r\n") for line in stream.lines()], dtype=pl.String)
    return _Fields(values.to_frame(), pl.int_range(first, first + len(values), eager=True))


def _read_with_certainty(
    stream: Stream, sample: list[str], separator: str, quotes: Quotes | None, first: int
) -> tuple[_Fields, str | None]:
    """Read with each possible way of quoting until one holds; return that reading, and a note if it is not the usual.

    A file that a backslash was meant to escape does not hold in the usual way: the mark after the backslash ends the
    field there, and what follows is no separator.
    """
    if quotes is not None:
        return _Reading(stream, separator, quotes, first).fields(checked=False), None
    single = _Reading(stream, separator, "doubled", first, mark="'")
    said = f"{stream.source}: fields stand between single quotation marks"
    if _in_single_quotes(sample, separator):
        with contextlib.suppress(DataError):  # not all of them, so that the marks are characters
            return single.fields(checked=True), said
    ways: dict[Quotes, str | None] = {"doubled": None}
    if stream.backslashes:
        ways["backslash"] = f'{stream.source}: quotation marks in fields are escaped by backslashes (\\")'
    if separator == "\t":
        ways["literal"] = f"{stream.source}: no field is quoted, quotation marks are plain characters"
    failed: list[DataError] = []
    for way, note in ways.items():
        reading = _Reading(stream, separator, way, first)
        try:
            fields = reading.fields(checked=True)
        except DataError as error:
            failed.append(error)
            continue
        if way == "backslash":
            reading.refuse_mixed()
        return fields, note
    usual = Counter(line.count(separator) for line in sample).most_common(1)[0][0] if sample else 0
    longer = [line for line in sample if line.count(separator) > usual]
    if longer and _share_in_single_quotes(longer, separator) < 0.5:
        raise failed[0]
    with contextlib.suppress(DataError):
        fields = single.fields(checked=True)
        if fields.columns.select(pl.any_horizontal(pl.all().str.contains(separator, literal=True).any())).item():
            return fields, said  # a separator in a field proves the marks around it
    raise failed[0]


@dataclass(frozen=True)
class _Reading:
    """One way to read a file; `first` is the number of its first record, 0 for a header."""

    stream: Stream
    separator: str
    quotes: Quotes
    first: int
    mark: str = '"'

    def fields(self, *, checked: bool) -> _Fields:
        """Read every record; `checked` also refuses fields that hold further records.

        :raises DataError: for the first record that cannot be read this way.
        """
        reader = self._reader()
        chunks, numbers, short, candidates = [], list[int](), list[int](), list[Candidate]()
        width, number = 0, self.first
        while True:
            lines = reader.line_num  # type: ignore[attr-defined]
            records = self._chunk(reader)
            if not records:
                break
            width = width or next((len(record) for record in records if record), 0)
            if not width or any(len(record) != width for record in records):
                kept = self._even(records, width, number, short)
            else:
                kept = dict(enumerate(records, start=number))
            if checked and self.quotes == "literal":
                self._refuse_quoted(kept)
            elif checked and reader.line_num - lines != len(records):  # type: ignore[attr-defined]
                found = (candidate(place, record, self.separator) for place, record in kept.items())
                candidates += [one for one in found if one]
            columns = zip(*kept.values(), strict=True)
            chunks.append(pl.DataFrame([pl.Series(str(i), c, dtype=pl.String) for i, c in enumerate(columns)]))
            numbers += kept
            number += len(records)
        if not numbers:
            raise DataError(f"{self.stream.source} holds nothing but blank lines", "give it a header and rows")
        fields = _Fields(pl.concat(chunk for chunk in chunks if chunk.width), pl.Series(numbers), tuple(short))
        if candidates and (one := first_swallowing(candidates, fields.columns)):
            lines = counted(len(one.rows), "line")
            raise DataError(
                f"{self.stream.source}, {self._where(one.place)}: a quoted field holds {lines} that look like rows: "
                "a quotation mark is opened there and not closed as it should be",
                'write a quotation mark inside a quoted field as ""; if the text is meant so: --quotes doubled',
            )
        return fields

    def _reader(self) -> Iterator[list[str]]:
        lines: Iterable[str] = self.stream.lines()
        if self.quotes == "backslash":
            lines = map(_unescaped, lines)
        if self.quotes == "literal":
            return csv.reader(lines, delimiter=self.separator, strict=True, quoting=csv.QUOTE_NONE)
        return csv.reader(
            lines, delimiter=self.separator, strict=True, quotechar=self.mark, skipinitialspace=self._padded()
        )

    def _padded(self) -> bool:
        """Whether a blank stands behind each separator of the first line: it belongs to no field."""
        _, *further = next(iter(self.stream.lines()), "").split(self.separator)
        return self.separator != " " and bool(further) and all(re.match(r" +\S", one) for one in further)

    def _chunk(self, reader: Iterator[list[str]]) -> list[list[str]]:
        try:
            records = list(islice(reader, _CHUNK))
        except csv.Error as error:
            raise self._malformed() from error
        if self.quotes == "backslash":
            return [[value.replace(_MARK, '"') for value in record] for record in records]
        return records

    def _even(self, records: list[list[str]], width: int, number: int, short: list[int]) -> dict[int, list[str]]:
        """Return number -> record without blank lines; short ones filled up, empty fields at the end taken off."""
        kept = {}
        for place, record in enumerate(records, start=number):
            if len(record) > width and any(record[width:]):
                raise DataError(
                    f"{self.stream.source}, {self._where(place)}: {len(record)} fields under {width} columns",
                    "put texts that hold the separator between double quotation marks",
                )
            if 0 < len(record) < width:
                short.append(place)
            if record:
                kept[place] = record[:width] + [""] * (width - len(record))
        return kept

    def _refuse_quoted(self, records: dict[int, list[str]]) -> None:
        for place, record in records.items():
            if any(len(value) > 1 and value[0] == value[-1] == '"' for value in record):
                raise DataError(f"{self.stream.source}, row {place}: a quoted field", "close every quotation mark")

    def refuse_mixed(self) -> None:
        r"""Refuse the first record that reads differently if ``""`` is no mark: beside ``\"`` it may not be.

        :raises DataError: with the row.
        """
        if not any('""' in line for line in self.stream.lines()):
            return
        plain = csv.reader(map(_unescaped, self.stream.lines()), delimiter=self.separator, doublequote=False)
        for number, (one, other) in enumerate(zip(self._reader(), plain, strict=False), start=self.first):
            if one != other:
                raise DataError(
                    f'{self.stream.source}, {self._where(number)}: a file with \\" and "" in its fields reads two ways',
                    'write each quotation mark inside a quoted field as ""; if both mean one mark: --quotes backslash',
                )

    def _malformed(self) -> DataError:
        """Return the error for the first record that the csv module refuses."""
        reader = self._reader()
        number = self.first
        try:
            for _ in reader:
                number += 1
        except csv.Error:
            pass
        return DataError(
            f"{self.stream.source}, {self._where(number)}: a quotation mark is not closed as it should be",
            'close it, and write a quotation mark inside a quoted field as ""',
        )

    def _where(self, number: int) -> str:
        """Return ``row 5 (line 6)`` for a record's number."""
        line = 1 + self.stream.skipped
        reader = self._reader()
        for _ in range(number - self.first):
            next(reader)
            line = reader.line_num + 1 + self.stream.skipped  # type: ignore[attr-defined]
        return f"row {number:,} (line {line:,})" if number else f"the header (line {line:,})"


def _in_single_quotes(sample: list[str], separator: str) -> bool:
    """Whether each line below the first has a field between single quotation marks, and none a double one."""
    lines = [line for line in sample[1:] if line.strip()]
    return len(lines) > 1 and _share_in_single_quotes(lines, separator) == 1 and not any('"' in line for line in lines)


def _share_in_single_quotes(lines: list[str], separator: str) -> float:
    """How many of the lines have a field between single quotation marks, as a share."""
    mark = re.escape(separator)
    field = re.compile(f"(^|{mark} ?)'([^']|'')*'({mark}|$)")
    return sum(field.search(line.strip()) is not None for line in lines) / len(lines) if lines else 0.0


def _unescaped(line: str) -> str:
    """Return `line` with every escaped quotation mark as `_MARK`, and escaped backslashes before a mark as one."""
    if _MARK in line:
        raise DataError(f"a text holds the character {_MARK!r}", "remove it, or say --quotes doubled")
    if "\\" not in line:
        return line
    line = _ESCAPED.sub(lambda found: found[1][::2] + _MARK, line)
    return _CLOSED.sub(lambda found: found[1][::2] + '"', line)


def _above(sample: list[str], format: FileFormat) -> int:
    """Return how many lines stand above the names of the columns: the same under each separator that may be meant."""
    given = _NAMED.get(format.separator or "", format.separator)
    found = set()
    for mark in [given] if given else SEPARATORS:
        if len(mark) != 1:
            continue
        records, ends = _sampled(sample, mark)
        above = lines_above(records)
        if above:
            found.add(ends[above - 1])
        elif (
            records
            and len(records[0]) > 1
            and len({len(record) for record in records if record}) == 1
            and all(records[0])
        ):
            return 0
    return found.pop() if len(found) == 1 else 0


def _separator(source: str, sample: list[str], given: str | None) -> tuple[str, str | None]:
    """Return the separator and, if it is not what the file's name says, a note; "" if the header has one column."""
    if given is not None:
        if given == "none":
            return "", None
        given = _NAMED.get(given, given)
        if len(given) != 1 or given in '"\r\n':
            raise DataError(f"{quoted(given)} is no separator", "give one character, tab or none: --separator ';'")
        return given, None
    usual = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}.get(suffix_of(source), "")
    widths = {mark: [len(record) for record in _sampled(sample, mark)[0] if record] for mark in SEPARATORS}
    even = [mark for mark, found in widths.items() if len(set(found)) == 1 and found[0] > 1]
    if not even:
        single = {mark: {len(record) for record in _sampled(sample, mark, "'")[0] if record} for mark in SEPARATORS}
        even = [mark for mark, found in single.items() if len(found) == 1 and found != {1}]
    if usual in even:
        return usual, None
    if usual and widths[usual] and widths[usual][0] > 1 and not even:
        return usual, None
    if len(even) > 1:
        raise DataError(
            f"{source} may be separated by {' or by '.join(SEPARATORS[mark] for mark in even)}",
            "say which: --separator " + " or --separator ".join(repr(mark) for mark in even),
        )
    if not even and suffix_of(source) != ".txt":
        even = sorted((m for m in SEPARATORS if widths[m] and widths[m][0] > 1), key=lambda m: -widths[m][0])[:1]
    if not even:
        return "", None
    return even[0], f"{source}: fields are separated by {SEPARATORS[even[0]]}"


def _sampled(sample: list[str], separator: str, mark: str = '"') -> tuple[list[list[str]], list[int]]:
    """Return the first records and the lines they end in, but for what the end of the sample may have cut."""
    reader = csv.reader(sample, delimiter=separator, quotechar=mark)
    records, ends = [], []
    with contextlib.suppress(csv.Error):
        for record in reader:
            records.append(record)
            ends.append(reader.line_num)
    whole = -1 if len(sample) == _SAMPLE else None
    return records[:whole], ends


def _named(stream: Stream, fields: _Fields, header: bool, notes: list[str]) -> Records:
    """Give the columns their names; rows at the end that hold nothing are no records."""
    frame, numbers = with_names(stream.source, fields.columns, header), fields.numbers[int(header) :]
    frame = frame.with_columns(pl.when(pl.all() != "").then(pl.all()))
    filled = frame.select(~pl.all_horizontal(pl.all().is_null())).to_series().arg_true()
    end = int(filled[-1]) + 1 if len(filled) else 0
    if frame.width > 1 and end < frame.height:
        notes.append(f"{stream.source}: {counted(frame.height - end, 'empty row')} at the end left out")
        frame, numbers = frame[:end], numbers[:end]
    if fields.short:
        many = counted(len(fields.short), "row")
        notes.append(
            f"{stream.source}: {many} with fewer fields than columns ({listed(fields.short)}): the rest is empty"
        )
    return Records(stream.source, frame, numbers, notes=tuple(notes), short=fields.short, named=header)
