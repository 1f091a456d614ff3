"""Keys are BLAKE2b-128 of the UTF-8 bytes of prompt + text, nothing else."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CacheError, text_keys

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(TEXT), TEXT)
def test_keys_are_the_hash_of_prompt_and_text(texts, prompt):
    keys = text_keys(texts, prompt)
    assert keys.shape == (len(texts), 16)
    assert keys.dtype == np.uint8
    for key, text in zip(keys, texts, strict=True):
        assert key.tobytes() == hashlib.blake2b((prompt + text).encode("utf-8"), digest_size=16).digest()


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ("one string", "texts is one string ('one string')"),
        (["a", None], "text 1 is NoneType, not a string (None)"),
        (["a", "b", 3.5], "text 2 is float, not a string (3.5)"),
        (["fine", "bro\ud800ken"], "text 1 holds a lone surrogate (U+D800 at character 3)"),
    ],
)
def test_what_is_no_text_is_refused_with_its_row(texts, problem):
    with pytest.raises(CacheError) as error:
        text_keys(texts)
    assert str(error.value) == problem
    assert error.value.remedy
