"""`pipeline run` on a file of each form, as it comes or with the one option that the error names."""

import pytest

from tests.data.test_every_form import FORMS

GUESSED = [
    "plain.csv", "packed.csv.gz", "tabs.tsv", "semicolons_utf16.csv", "windows_1252.csv", "no_header.csv", "array.json",
    "keyed.json", "splits.json", "lines.jsonl", "columns.parquet", "sheet.xlsx", "folder", "parallel", "path_arrow.csv",
    "path_slash.csv", "python_list.csv", "toml/rows.csv", "toml/rows.toml", "uneven.csv", "one_level.csv",
]  # fmt: skip
WITH_OPTIONS = {
    "names/ids.csv": ("--names", FORMS / "names/labels.csv"),
    "tree/rows.csv": ("--hierarchy", FORMS / "tree/nodes.csv"),
    "mapping/rows.csv": ("--hierarchy", FORMS / "mapping/domains.json"),
    "title_and_body.csv": ("--text", "title,description"),
    "several_labels.csv": ("--label", "first"),
    "codes.csv": ("--code", "hs", "--digits", "2,4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GUESSED, *WITH_OPTIONS])
def test_run_works_on_a_file_of_each_form(pipeline, name):
    done = pipeline(
        "run", FORMS / name, "--backbone", "minilm", "--limit", "40", "--methods", "lda", *WITH_OPTIONS.get(name, ())
    )
    assert done.returncode == 0, done.stderr
    assert list((pipeline.artifacts / "reports").glob("*.html"))


@pytest.mark.parametrize("name", ["tabs.tsv", "uneven.csv"])
def test_what_was_guessed_is_said_by_embed(pipeline, name):
    done = pipeline("embed", FORMS / name, "--backbone", "minilm", "--limit", "40")
    assert done.returncode == 0, done.stderr
    expected = {
        "tabs.tsv": (
            "texts are in column 'sentence' (if not: --text)",
            "splits are in column 'partition' (if not: --split)",
        ),
        "uneven.csv": ("read as no label", "have no label of level"),
    }
    assert all(words in done.stderr for words in expected[name])
