"""ICD-10-CM by its rule, against the rule written out slowly over the package's own codes."""

import subprocess
import sys
from collections import defaultdict

import pytest

from data import BUILT_IN, DataError, Dataset, load, summarize
from data.sample import limited
from data.sources.icd10cm import DROPPED, LEAST_GROUPS, read_icd10cm


@pytest.fixture(scope="module")
def icd():
    """The package, which parses its file when it is imported: three seconds, not of every process that collects."""
    return pytest.importorskip("simple_icd_10_cm")


@pytest.fixture(scope="module")
def rows(icd):
    return read_icd10cm()


@pytest.fixture(scope="module")
def dataset(rows):
    return Dataset.from_rows(rows)


@pytest.fixture(scope="module")
def groups(icd):
    """Category code -> set of words -> descriptions of leaf codes, from the ancestors of each leaf."""
    found = defaultdict(lambda: defaultdict(set))
    for code in icd.get_all_codes():
        if icd.is_chapter(code) or not (icd.is_category(code) or icd.is_subcategory(code)):
            continue
        if icd.is_leaf(code):
            description = icd.get_description(code)
            for sign in ",;()[]0123456789":
                description = description.replace(sign, "" if sign.isdigit() else " ")
            words = frozenset(description.lower().split()) - DROPPED
            found[code[:3]][words].add(icd.get_description(code))
    return found


def category_of(label):
    return label.split(" ", 1)[0]


def test_the_published_shape(dataset):
    assert dataset.levels == ("chapter", "block", "category")
    assert dataset.hierarchy.sizes == (21, 264, 1_297)
    assert len(dataset) == 22_503
    assert [len(dataset.split_rows(split)) for split in ("train", "val", "test")] == [16_061, 2_439, 4_003]
    assert dataset.frame["text"].n_unique() == len(dataset)
    assert dataset.warnings == ()


def test_one_text_of_each_group_of_each_large_enough_category(dataset, groups):
    texts = defaultdict(set)
    for text, category in dataset.frame.select("text", "category").iter_rows():
        texts[category_of(category)].add(text)
    large = {category for category, members in groups.items() if len(members) >= LEAST_GROUPS}
    assert set(texts) == large
    for category in large:
        assert len(texts[category]) == len(groups[category])
        for members in groups[category].values():
            assert len(members & texts[category]) == 1


def test_a_fifth_of_a_categorys_groups_is_test_and_a_tenth_val(dataset):
    for _, part in dataset.frame.group_by("category"):
        counts = {split: part.filter(part["split"] == split).height for split in ("train", "val", "test")}
        assert counts["test"] == part.height // 5
        assert abs(counts["val"] - part.height / 10) <= 0.5
        assert counts["train"] >= 3 and counts["val"] >= 1 and counts["test"] >= 1


def test_labels_are_code_and_title_of_the_codes_ancestors(dataset):
    row = dataset.frame.filter(dataset.frame["category"].str.starts_with("A01 ")).row(0)
    assert row[1:4] == (
        "A00-B99 Certain infectious and parasitic diseases",
        "A00-A09 Intestinal infectious diseases",
        "A01 Typhoid and paratyphoid fevers",
    )
    single = dataset.frame.filter(dataset.frame["category"].str.starts_with("C50 "))["block"].unique().to_list()
    assert len(single) == 1 and single[0].startswith("C50 ")


def test_all_rows_hold_every_description_once_and_a_group_in_one_split(icd):
    rows = BUILT_IN["icd10cm"].read(None, True)
    codes = [code for code in icd.get_all_codes() if icd.is_category(code) or icd.is_subcategory(code)]
    assert rows.frame.height == rows.frame["text"].n_unique() == 97_449
    assert set(rows.frame["text"]) == {icd.get_description(code) for code in codes}
    assert Dataset.from_rows(rows).hierarchy.sizes == (22, 285, 1_918)
    splits = defaultdict(set)
    for text, category, split in rows.frame.select("text", "category", "split").iter_rows():
        if "trimester" in text:
            parts = frozenset(text.lower().replace(",", " ").split()) - DROPPED
            splits[category, frozenset(part for part in parts if not any(sign.isdigit() for sign in part))].add(split)
    assert len(splits) > 100 and all(len(found) == 1 for found in splits.values())


def test_it_is_the_same_in_every_process_and_another_seed_draws_anew(dataset):
    code = "from data import load; print(load('icd10cm').id)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert done.stdout.strip() == dataset.id
    other = read_icd10cm(seed=1).frame
    assert other.height == len(dataset)
    assert other["text"].to_list() != dataset.texts


def test_a_limit_keeps_a_hierarchy_of_three_levels(rows):
    for limit, least in ((200, (3, 8, 20)), (1_000, (5, 20, 60)), (5_000, (10, 80, 300))):
        part = Dataset.from_rows(limited(rows, limit))
        assert limit - 20 < len(part) <= limit
        assert all(size >= low for size, low in zip(part.hierarchy.sizes, least, strict=True))
        assert part.warnings == ()
        assert part.id == Dataset.from_rows(limited(rows, limit)).id


def test_entropies_of_three_levels(dataset):
    chapter, block, category = summarize(dataset).levels
    assert chapter.conditional_entropy + block.conditional_entropy + category.conditional_entropy == pytest.approx(
        category.entropy
    )
    assert 3 < chapter.entropy < 4.39 and category.branching is None


def test_kept_rows_are_those_that_are_parsed(rows, tmp_path):
    first, again = (BUILT_IN["icd10cm"].read(tmp_path, False) for _ in range(2))
    assert first.frame.equals(rows.frame) and again.frame.equals(rows.frame)
    code = f"import sys, data; data.load('icd10cm', folder=__import__('pathlib').Path({str(tmp_path)!r})); "
    code += "print('simple_icd_10_cm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "simple_icd_10_cm", None)
    with pytest.raises(DataError, match="simple-icd-10-cm, which is not installed") as caught:
        load("icd10cm")
    assert "pip install simple-icd-10-cm" in caught.value.remedy
