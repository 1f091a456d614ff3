"""Names, options and the whole of `check`."""

import pytest

from data import BUILT_IN, DataError, check, load


def test_the_built_ins_are_a_table():
    assert list(BUILT_IN) == ["clinc", "icd10cm"]
    for built_in in BUILT_IN.values():
        assert built_in.title and built_in.origin and len(built_in.levels) >= 2


@pytest.mark.parametrize(
    ("source", "options", "problem", "remedy"),
    [
        ("clincc", {}, "no dataset and no file 'clincc'", "did you mean clinc"),
        ("nothing", {}, "no dataset and no file 'nothing'", "clinc, icd10cm"),
        ("", {}, "no dataset", "clinc, icd10cm"),
        ("clinc", {"all_rows": True}, "no further rows", "--all"),
        ("t.csv", {"all_rows": True}, "no further rows", "--all"),
        ("icd10cm", {"levels": ["chapter", "block"]}, "built in", "--levels"),
        ("icd10cm", {"text": "description"}, "built in", "--text"),
        ("clinc", {"qualify_labels": True}, "built in", "--qualify-labels"),
        ("clinc", {"drop_incomplete": True}, "built in", "--drop-incomplete"),
        ("ftp://host/t.csv", {}, "cannot read", ""),
    ],
)
def test_what_cannot_be_loaded(source, options, problem, remedy):
    with pytest.raises(DataError, match=problem) as caught:
        load(source, **options)
    assert remedy in caught.value.remedy
    found = check(source, **options)
    assert [(one.severity, one.check) for one in found] == [("error", "unreadable")]
    assert found[0].problem == str(caught.value)


def test_check_reports_all_that_is_wrong_at_once(write):
    path = write(
        "t.csv",
        "text,level0,level1,split\none,a,x,train\n,a,x,train\ntwo,b,x,nowhere\nthree,,x,test\nfour,a,y,test\n",
    )
    found = check(path)
    assert [one.check for one in found if one.severity == "error"] == [
        "empty-text",
        "missing-label",
        "unknown-split",
        "two-parents",
    ]
    assert [one.check for one in check(path, qualify_labels=True) if one.severity == "error"][-1] == "unknown-split"
    assert "missing-label" not in [one.check for one in check(path, drop_incomplete=True)]


def test_faults_outside_the_sample_are_found_all_the_same(write):
    rows = "".join(f"text {n},a{n % 3},b{n % 3}.{n % 2},{'test' if n % 4 == 0 else 'train'}\n" for n in range(300))
    path = write("t.csv", "text,level0,level1,split\n" + rows + "odd,a9,b0.0,train\n")
    with pytest.raises(DataError, match=r"'b0\.0' under .* \(row 301\)"):
        load(path, limit=20)
