"""Codes whose first characters are the coarser labels, as of customs, industries and occupations, into levels.

A code is its letters and digits. A file that was once read as numbers has lost leading zeros, which move a code under
another label: 010121 is of chapter 01, 10121 looks like 10. They are put back where a level says how long a code is,
and said; where nothing does, that is refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import pairwise

import polars as pl

from data.errors import DataError, quoted
from data.files.records import mean


def digits_for(codes: pl.Series) -> str:
    """Return digits that would make levels of `codes`: three at most whose classes repeat and grow."""
    plain = codes.drop_nulls().str.replace_all(r"[^\p{L}\p{N}]", "")
    sizes = {n: plain.str.slice(0, n).n_unique() for n in range(1, 1 + int(plain.str.len_chars().min() or 0))}  # type: ignore[arg-type]
    good = [n for n, size in sizes.items() if 1 < size <= len(plain) / 2 and size > sizes.get(n - 1, 1)]
    return ",".join(map(str, [good[0], good[len(good) // 2], good[-1]] if len(good) > 3 else good)) or "2,4,6"


def _refuse_sections(cells: pl.Series, place: str) -> None:
    """Refuse numbers such as 1.10 and 11.0: without their dots both are 110."""
    dotted = cells.drop_nulls().unique(maintain_order=True)
    whole = dotted.str.extract(r"^(\d+)[.,]\d")
    lengths = whole.drop_nulls().str.len_chars()
    if lengths.n_unique() < 2 or mean(whole.is_not_null()) < 0.5 or whole.str.starts_with("0").any():
        return
    one, other = (
        dotted.gather(whole.str.len_chars().eq(n).arg_true().head(1))[0] for n in (lengths.min(), lengths.max())
    )
    raise DataError(
        f"{place}: {quoted(one)} and {quoted(other)} in {quoted(cells.name)} have no digits in common places",
        "write each with its zeros, as text; of numbered sections: "
        f"--levels {shlex.quote(cells.name)} --path-separator .",
    )


def _lost_zeros(codes: pl.Series, digits: Sequence[int], place: str) -> tuple[pl.Series, list[str]]:
    """Whether each code lost its leading zero, since it is one digit short of a level; and what is doubtful.

    Where no number begins with 0, those a digit shorter than the longest lost a zero if the file was read as numbers
    once, as codes of customs; of industries they are labels of a coarser level. That is said where both lengths are
    levels. Where both are beyond every level, they are taken as coarser labels only if most of them begin a longer one.

    :raises DataError: if they do not.
    """
    numeric = codes.str.contains(r"^\d+$").fill_null(False)
    lengths = codes.str.len_chars()
    lost = numeric & ~lengths.is_in(list(digits)) & (lengths + 1).is_in(list(digits))
    sizes = sorted(lengths.filter(numeric).unique())
    beyond = [size for size in sizes if size > digits[-1]]
    last = beyond or sizes[-2:]
    if len(last) != 2 or last[1] != last[0] + 1 or codes.str.starts_with("0").any():
        return lost, []
    short = numeric & (lengths == last[0])
    said = f"{int(short.sum()):,} codes in {quoted(codes.name)} have {last[0]} digits, others {last[1]}"
    if not beyond:
        doubtful = set(last) <= set(digits) and not lost.any() and not codes.str.contains(r"\D").any()
        note = f"{said}: read as labels of a coarser level (if they lost a leading zero: write it)"
        return lost, [note] if doubtful else []
    begun = codes.filter(lengths == last[1]).str.slice(0, last[0]).unique()
    if mean(codes.filter(short).unique().is_in(begun.implode())) < 0.5:
        wide, both = (",".join(map(str, (*digits, *more))) for more in (last[1:], last))
        raise DataError(
            f"{place}: {said}: they lost a leading zero, or are labels of a coarser level",
            f"of lost zeros: --digits {wide}; of coarser labels: --digits {both}",
        )
    return lost, []


def levels_of_codes(cells: pl.Series, digits: Sequence[int], place: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return one level per number in `digits`: the first so many letters and digits of each code.

    Codes of digits alone that lost their leading zero get it back. A shorter code has no label on the finer levels.

    :raises DataError: if `digits` are missing or do not grow, or codes are too short or may have lost zeros.
    """
    if not digits:
        raise DataError(
            f"{place}: --code says no levels by itself",
            f"say how many characters each has: --digits {digits_for(cells)}",
        )
    if any(one >= other for one, other in pairwise(digits)) or digits[0] < 1:
        raise DataError(
            f"--digits {','.join(map(str, digits))} do not grow", "give them coarsest first: --digits 2,4,6"
        )
    _refuse_sections(cells, place)
    codes = cells.str.replace_all(r"[^\p{L}\p{N}]", "")
    lost, notes = _lost_zeros(codes, digits, place)
    if lost.any():
        codes = codes.zip_with(~lost.fill_null(False), "0" + codes)
        notes.append(f"{int(lost.sum()):,} codes in {quoted(cells.name)} lost a leading zero, which is put back")
    made = {
        f"{cells.name}{number}": codes.to_frame("code")
        .select(pl.when(pl.col("code").str.len_chars() >= number).then(pl.col("code").str.slice(0, number)))
        .to_series()
        for number in digits
    }
    short = int((codes.str.len_chars() < digits[0]).sum())
    if short:
        raise DataError(f"{place}: {short:,} codes have fewer than {digits[0]} characters", "give smaller --digits")
    return pl.DataFrame(made), tuple(notes)
