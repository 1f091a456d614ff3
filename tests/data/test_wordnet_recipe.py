"""The recipe of the third dataset: what a line of WordNet's data.noun says, and which nouns are taken."""

from __future__ import annotations

import numpy as np

from benchmarks.data.wordnet import CLASSES, ROWS_PER_CLASS, Noun, parsed, rows, summed_up

LINE = (
    "00005930 03 n 02 dwarf 0 small_thing 1 002 @ 00004475 n 0000 ~ 00009999 n 0000 | atypically small; "
    '"a dwarf star"  '
)


def test_a_line_gives_words_definition_and_hypernyms_alone():
    assert parsed(LINE) == Noun("00005930", 3, ("dwarf", "small thing"), "atypically small", ("00004475",))


def test_large_classes_are_taken_and_no_noun_leaves_its_file():
    parents = [Noun(f"{n:08d}", 5, (f"kind {n}",), "a kind", ()) for n in range(CLASSES + 5)]
    children = [
        Noun(f"{1000 * (n + 1) + i:08d}", 5 if i else 6, (f"noun {n} {i}",), "a noun", (f"{n:08d}",))
        for n in range(CLASSES + 5)
        for i in range(ROWS_PER_CLASS + 1 + n % 2)
    ]
    taken = rows([*parents, *children])
    assert len(taken) == CLASSES * ROWS_PER_CLASS
    assert {row[1] for row in taken} == {"noun.animal"}
    kinds = {row[2] for row in taken}
    assert len(kinds) == CLASSES
    odd = {f"kind {n} ({n:08d})" for n in range(1, CLASSES + 5, 2)}
    assert odd <= kinds  # they have one noun more
    assert rows([*parents, *children]) == taken


def test_a_row_of_the_table_is_the_mean_over_seeds_of_one_method_under_one_protocol():
    def record(method, protocol, shares):
        return {
            "method": method,
            "protocol": protocol,
            "gallery": 10,
            "queries": 4,
            "samples": 1,
            "prefixes": [{"dim": 64, "levels": [{"accuracy": share} for share in shares]}],
        }

    scores = [record("v5", "gallery", (0.5, 0.25)), record("lda", "gallery", (1.0, 0.0))]
    scores += [record("v5", "leave-one-out", (0.0, 0.0)), record("v5", "gallery", (1.0, 0.75))]
    table = {row["what"]: row for row in summed_up(scores)}
    assert list(table) == ["v5, gallery", "lda, gallery", "v5, leave-one-out"]
    assert table["v5, gallery"]["accuracies"] == [[75.0, 50.0]]
    np.testing.assert_allclose(table["v5, gallery"]["sd"], [[50 / 2**0.5, 50 / 2**0.5]])
    assert (table["v5, gallery"]["seeds"], table["lda, gallery"]["seeds"]) == (2, 1)
    assert table["lda, gallery"]["sd"] is None
