"""What is acknowledged, against a list of the rows as they were appended."""

from collections import deque
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from cache.workers.work_items import InFlight


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans()), max_size=40), st.integers(1, 7))
def test_an_item_is_acknowledged_when_all_its_rows_are_committed_and_not_before(batches, shard):
    """A writer commits every `shard` rows, when it commits."""
    sizes: dict[int, int] = {}
    for number, texts, _ in batches:
        sizes[number] = sizes.get(number, 0) + texts
    done: dict[int, int] = {}
    in_flight = InFlight(lambda number, tally: done.update({number: tally.computed}))
    for number, size in sizes.items():
        in_flight.add(SimpleNamespace(number=number, texts=["t"] * size))
    appended: deque[int] = deque()
    writer = SimpleNamespace(rows=0, committed=0)
    for number, texts, commits in batches:
        appended.extend([number] * texts)
        writer.rows += texts
        if commits:
            writer.committed = writer.rows // shard * shard
        batch = SimpleNamespace(tokens=1, nodes=1, padding=0)
        in_flight.handed_over(SimpleNamespace(number=number, texts=["t"] * texts), batch, [writer])
        committed = list(appended)[: writer.committed]
        assert done.keys() <= {n for n, size in sizes.items() if committed.count(n) == size}
    writer.committed = writer.rows
    in_flight.committed([writer])
    assert done == sizes
