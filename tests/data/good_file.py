"""A file that is read without a word, its rows, and the same rows as lines of JSON."""

HEADER = "text,level0,level1,split\n"
GOOD = HEADER + "one,01,1.50,train\ntwo,01,1.50,val\nthree,02,2.0,test\nfour,02,2.0,train\n"
ROWS = [
    ("one", "01", "1.50", "train"),
    ("two", "01", "1.50", "val"),
    ("three", "02", "2.0", "test"),
    ("four", "02", "2.0", "train"),
]
LINES = [
    '{"text": "one", "level0": "01", "level1": 1.50, "split": "train"}',
    '{"text": "two", "level0": "01", "level1": 1.50, "split": "val"}',
    "",
    '{"text": "three", "level0": "02", "level1": 2.0, "split": "test", "more": {"a": [1]}}',
    '{"split": "train", "level1": "2.0", "level0": "02", "text": "four"}',
]
