"""Quotation marks that are escaped, left open or mean inches, and line breaks between them: no row is lost."""

import pytest

from data import DataError, load, read_texts
from tests.data.good_file import GOOD

SWALLOWED = [f"row {n},a{n % 3},b{n % 6},train" for n in range(300)]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_marks_escaped_by_backslashes_lose_no_rows(write, mark):
    rows = list(SWALLOWED)
    rows[50], rows[250] = '"one 5\\" wide",a1,b1,train', '"say \\"hi\\" now",a1,b1,train'
    content = "\n".join(["text,level0,level1,split", *rows, "x,a1,b1,test"]).replace(",", mark)
    frame = load(write("t.csv", content)).frame
    assert frame.height == 301
    assert frame["text"][50] == 'one 5" wide' and frame["text"][250] == 'say "hi" now'


@pytest.mark.parametrize(
    ("first", "second"),
    [('"one 5,a1,b1,train', 'wide 5",a1,b1,train'), ('"one,a1,b1,train', 'two,a1,"b1",train')],
)
@pytest.mark.parametrize("apart", [1, 2, 200])
def test_a_mark_that_swallows_rows_is_named(write, first, second, apart):
    rows = list(SWALLOWED)
    rows[50], rows[50 + apart] = first, second
    with pytest.raises(DataError, match=r"row 51 \(line 52\): a quot"):
        load(write("t.csv", "text,level0,level1,split\n" + "\n".join(rows)))


def test_texts_of_several_lines_with_separators_are_texts(write):
    poem = '"Dear John,\nhow are you, and yours,\nin May, in June, and in July,\nbye",a1,b1,test'
    frame = load(write("t.csv", "text,level0,level1,split\n" + "\n".join([poem, *SWALLOWED]))).frame
    assert frame.height == 301 and frame["text"][0].count("\n") == 3
    assert read_texts(write("u.csv", 'text,id\n"a,\nb,\nc",1\n"d,\ne",2\n')) == ["a,\nb,\nc", "d,\ne"]


def test_an_inch_mark_is_a_character(write):
    frame = load(write("t.csv", GOOD + 'the 5" pipe,02,2.0,test\n')).frame
    assert frame["text"][4] == 'the 5" pipe'
