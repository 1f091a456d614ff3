"""Requests of any bytes, and label paths against a search of every path."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.serve.label_paths import label_paths
from pipeline.serve.protocol import Limits, RequestError, read_request

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


@given(st.data())
def test_the_path_is_the_most_probable_of_all(data):
    sizes = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6)))
    parents = [
        np.array(data.draw(st.lists(st.integers(0, above - 1), min_size=count, max_size=count)), np.int64)
        for above, count in pairwise(sizes)
    ]
    levels = []
    for size in sizes:
        raw = data.draw(arrays(np.float32, (2, size), elements=st.floats(0.015625, 1, width=32)))
        levels.append(raw / raw.sum(axis=1, keepdims=True))
    found, confidence = label_paths(levels, parents)
    for row in range(2):
        paths = [(parents[0][parents[1][leaf]], parents[1][leaf], leaf) for leaf in range(sizes[2])]
        weights = np.array([np.prod([levels[at][row, c] for at, c in enumerate(path)]) for path in paths], np.float64)
        weights /= weights.sum()
        best = found[row].tolist()
        assert tuple(best) in {tuple(map(int, path)) for path in paths}
        assert weights[best[2]] >= weights.max() - 1e-9
        for level in range(3):
            below = sum(w for w, path in zip(weights, paths, strict=True) if path[level] == best[level])
            assert confidence[row, level] == pytest.approx(below, abs=1e-5)


def test_a_level_that_nobody_answers_ends_the_path():
    found, confidence = label_paths([np.array([[0.9, 0.1]], np.float32), None], [np.array([0, 1, 1])])
    assert found.tolist() == [[0]]
    assert confidence[0, 0] == pytest.approx(0.9)
