"""What goes into the store comes out, rounded as IEEE 754 says, or is refused with its row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cache import CacheError
from cache.store.dtypes import ENCODINGS, acceptable, decode
from cache.store.dtypes import encode as encode_to

FLOATS = arrays(np.float32, (7, 3), elements=st.floats(-65504, 65504, width=32))


def encode(features, name, dim):
    values = acceptable(features, name, dim)
    out = np.empty(values.shape, ENCODINGS[name].stored)
    encode_to(values, name, out)
    return out


@settings(deadline=None)
@given(FLOATS)
def test_float16_is_numpys_own_rounding(values):
    assert (encode(values, "float16", 3).view(np.uint16) == values.astype(np.float16).view(np.uint16)).all()


@settings(deadline=None)
@given(FLOATS)
def test_float32_is_exact(values):
    assert encode(values, "float32", 3).tobytes() == values.tobytes()


@settings(deadline=None)
@given(FLOATS)
def test_bfloat16_is_torchs_rounding_and_widens_exactly(values):
    torch = pytest.importorskip("torch")
    found = decode(encode(values, "bfloat16", 3), "bfloat16")
    assert found.dtype == np.float32
    assert found.tobytes() == torch.from_numpy(values).bfloat16().float().numpy().tobytes()


@pytest.mark.parametrize("name", list(ENCODINGS))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_its_row(name, value):
    features = np.zeros((70_000, 2), np.float32)
    features[66_000, 1] = value
    with pytest.raises(CacheError, match=f"feature 1 of row 66000 is {value}") as error:
        encode(features, name, 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("float16", 65505.0), ("float16", -1e6), ("bfloat16", 3.4e38)])
def test_what_is_out_of_range_is_refused_not_clipped(name, value):
    with pytest.raises(CacheError, match="feature 0 of row 1 is"):
        encode(np.array([[0.0], [value]], np.float32), name, 1)


@pytest.mark.parametrize("name", list(ENCODINGS))
def test_the_largest_value_is_kept(name):
    largest = ENCODINGS[name].largest
    stored = encode(np.array([[largest], [-largest]], np.float32), name, 1)
    assert decode(stored, name).astype(np.float64)[:, 0].tolist() == [largest, -largest]


@pytest.mark.parametrize(
    "features", [np.zeros((2, 3), np.float32), np.zeros(4, np.float32), np.zeros((2, 4), np.int64)]
)
def test_another_shape_or_kind_is_refused(features):
    with pytest.raises(CacheError, match=r"this store holds floats \[n, 4\]"):
        encode(features, "float32", 4)


def test_float16_and_float64_input_is_taken():
    values = np.array([[1.5, -2.25]])
    for dtype in (np.float16, np.float32, np.float64):
        for name in ("float16", "float32"):
            assert encode(values.astype(dtype), name, 2).tolist() == values.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("name", list(ENCODINGS))
def test_other_input_is_refused_alike(name, dtype, value):
    with pytest.raises(CacheError, match=f"feature 0 of row 1 is {value}"):
        encode(np.array([[-0.0], [value]], dtype), name, 1)


def test_a_double_that_no_float32_can_hold_is_refused():
    with pytest.raises(CacheError, match="feature 0 of row 0 is 1e\\+39"):
        encode(np.array([[1e39]]), "float32", 1)
