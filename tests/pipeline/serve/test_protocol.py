"""Requests of any bytes, and what a reply holds."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serve.protocol import Limits, RequestError, labels_reply, read_request

DIMS = (64, 256)
LIMITS = Limits(texts=3)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.binary() | ANY.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_request_are_refused(body):
    with pytest.raises(RequestError) as caught:
        read_request(body, "m", DIMS, LIMITS)
    assert 400 <= caught.value.status < 500


@given(st.fixed_dictionaries({}, optional={name: ANY for name in ("input", "model", "dimensions", "encoding_format")}))
def test_a_request_is_read_or_refused_by_its_field(fields):
    try:
        asked = read_request(json.dumps(fields).encode(), "m", DIMS, LIMITS)
    except RequestError as error:
        assert error.param in fields or error.param == "input"
        return
    texts = fields["input"] if isinstance(fields["input"], list) else [fields["input"]]
    assert list(asked.texts) == texts
    assert asked.dim in DIMS


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\x00", "\ufeff\x1b "])
def test_what_nobody_sees_is_no_text_here_either(text):
    with pytest.raises(RequestError, match=r"input\[1\] is not a text"):
        read_request(json.dumps({"input": ["a", text]}).encode(), "m", DIMS, LIMITS)


def test_a_path_ends_where_the_head_says():
    paths, sure = np.array([[1, 2], [0, -1]]), np.array([[0.75, 0.5], [1, np.nan]], np.float32)
    reply = labels_reply(paths, sure, ("top", "leaf"), (("a", "b"), ("a0", "b0", "b1")), "m", 5)
    first, second = (
        [(each["level"], each["label"], each["confidence"]) for each in answer["labels"]] for answer in reply["data"]
    )
    assert first == [("top", "b", 0.75), ("leaf", "b1", 0.5)]
    assert second == [("top", "a", 1.0)]
    json.dumps(reply, allow_nan=False)
