"""Figures in README and docs have sources, and the check that says so finds the ones that have none."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import check_figures as check  # noqa: E402

TABLE = "Accuracy in %:\n\n| | a | b |\n|---|---|---|\n| `joint` | {} | {} |\n\nOurs gain 2.5 points, in 900 texts.\n"
RULES = {
    "figure": [
        {"at": "| `joint` |", "under": "Accuracy", "source": "some.json", "fields": ["results/joint/accuracies"]},
        {"at": "Ours gain", "source": "RESULTS.md#gains-2026", "fields": [["minus", "98.5", "96.0"]]},
    ]
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    rows = {"results": [{"what": "joint", "accuracies": [98.26, 95.84]}]}
    (tmp_path / "benchmarks" / "results" / "some.json").write_text(json.dumps(rows))
    (tmp_path / "benchmarks" / "RESULTS.md").write_text(
        "# R\n\n## Gains (2026)\n\n98.5 against 96.0\n\n## Else\n\n7.7\n"
    )
    return tmp_path


def complaints(document, root, rules=RULES):
    return [what for _, what in check.unsupported(document, rules, root)]


@pytest.mark.slow  # `make check` runs the same command
def test_every_figure_of_the_documents_has_a_source():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "check_figures.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_figures_are_compared_in_order_and_rounded(root):
    assert complaints(TABLE.format("98.3", "95.8"), root) == []
    assert len(complaints(TABLE.format("95.8", "98.3"), root)) == 2
    assert len(complaints(TABLE.format("98.2", "95.8"), root)) == 1
    assert any("3 figures, 2 fields" in what for what in complaints(TABLE.format("98.3", "95.8 | 1.5"), root))


def test_a_difference_is_computed_again_and_a_section_is_its_own(root):
    wrong = TABLE.format("98.3", "95.8").replace("2.5 points", "2.6 points")
    assert complaints(wrong, root) == ["no source has '2.6 points', but [2.5]"]
    elsewhere = {"figure": [*RULES["figure"], {"at": "Ours gain", "source": "RESULTS.md#else"}]}
    found = complaints(TABLE.format("98.3", "95.8") + "Ours gain 96.0 %, and 5.5 %.\n", root, elsewhere)
    assert found == ["no source has '5.5 %', but [2.5]"]


def test_what_supports_nothing_is_named(root):
    (told,) = complaints("No figure.\n", root, {"figure": RULES["figure"][:1]})
    assert "'| `joint` |'" in told
    missing = {"figure": [{"at": "gain", "source": "none.json", "fields": ["x"]}]}
    assert "there is no benchmarks/results/none.json" in complaints("They gain 2.5 %.\n", root, missing)[0]


def test_arithmetic_is_checked_and_is_nothing_else(root):
    rules = {"computed": {"2.1 GB": "1e6 * 2072 / 1e9"}}
    assert complaints("It takes 2.1 GB.\n", root, rules) == []
    assert "is not" in complaints("It takes 2.2 GB.\n", root, {"computed": {"2.2 GB": "1e6 * 2072 / 1e9"}})[0]
    with pytest.raises(ValueError, match="not arithmetic"):
        check.arithmetic("__import__('os')")


@given(st.decimals(-1000, 1000, places=4), st.integers(0, 3))
def test_shown_digits_are_rounded_digits(value, places):
    step = Decimal(1).scaleb(-places)
    assume(value % step != step / 2)  # halfway may be written either way
    shown = value.quantize(step, ROUND_HALF_UP)
    assert check.shows(f"{abs(shown):,}", float(value))
    assert not check.shows(f"{abs(shown) + step:,}", float(value))


@given(st.integers(0, 10**7), st.sampled_from(["%", "points", "texts/s", "x", "s", "GB", "MFLOP"]))
def test_a_number_with_a_unit_is_a_figure_and_in_code_is_none(number, unit):
    (block,) = check.blocks(f"It is {number:,} {unit} here.\n")
    assert [(f.number, f.unit) for f in block.figures] == [(f"{number:,}", unit)]
    assert not list(check.blocks(f"It is `{number:,} {unit}` here.\n\n```shell\n{number} {unit}\n```\n"))


def test_a_table_that_someone_edited_is_written_again_from_its_file():
    document = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    row = next(line for line in document.splitlines() if line.startswith("| `joint` | 64 |"))
    edited = document.replace(row, row.replace("9", "8"), 1)
    assert edited != document
    assert check.written(edited) == document
    blank = check.without_tables(document)
    assert len(blank.splitlines()) == len(document.splitlines())
    assert row not in blank


def test_verdicts_of_two_datasets_are_columns_and_a_file_that_is_not_there_is_named(root):
    results = root / "benchmarks" / "results"
    marked = "<!-- verdicts: a.json b.json -->\n<!-- end -->\n"
    assert "`b.json` is not there" in check.written(marked, root)
    kinds = ["order holds, only under the published protocol", "order holds", "does not hold", "equal by construction"]
    claims = [{"id": f"claim-{n}", "verdict": kind} for n, kind in enumerate(kinds)]
    second = {"id": "claim-2-recall", "verdict": "does not hold"}
    (results / "a.json").write_text(json.dumps({"dataset": "clinc-1", "claims": [*claims, second]}))
    (results / "b.json").write_text(json.dumps({"dataset": "icd10cm-1", "claims": claims[:1]}))
    rows = [line.strip("| ").split(" | ") for line in check.written(marked, root).splitlines() if line.startswith("|")]
    assert rows[0] == ["verdict", "CLINC150", "ICD-10-CM"]
    assert rows[2:] == [
        ["reproduced", "0", "0"],
        ["order holds", "2, 1 only in the published test", "1, only in the published test"],
        ["equal by construction", "1", "0"],
        ["does not hold", "1", "0"],
    ]


def test_a_number_of_four_digits_is_a_figure_without_a_unit_too(root):
    assert complaints("It takes 76,543 rows or 12 files.\n", root, {}) == ["no source has '76,543'"]
