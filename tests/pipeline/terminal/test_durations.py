"""Lengths of time as people say them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.terminal.console import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.44, "0.4 s"), (18.04, "18 s"), (59.6, "1 min"), (125, "2 min 5 s"), (3599.6, "1 h"), (23_148, "6 h 26 min"),
        (86_399, "1 d"), (190_000, "2 d 5 h"),
    ],
)  # fmt: skip
def test_times_are_said_in_their_two_largest_units(seconds, said):
    assert duration(seconds) == said


@given(st.floats(0, 3e7))
def test_what_is_said_is_the_time_to_half_a_unit_of_the_last_one_named(seconds):
    units = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}
    parts = re.findall(r"([\d,.]+) (s|min|h|d)", duration(seconds))
    value = sum(float(number.replace(",", "")) * units[unit] for number, unit in parts)
    named = 0.1 if seconds < 9.95 else 1 if seconds < 3_600 else 60 if seconds < 86_400 else 3_600
    assert abs(value - seconds) <= named / 2 + 1e-6
