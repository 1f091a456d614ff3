"""Threads ahead of and behind the computation: order, and an exception at any point comes out and hangs nobody."""

import threading
import time

import pytest

from cache.workers.background import BackgroundWriter, Prefetcher


def test_items_come_in_order_and_an_exception_after_them():
    def failing():
        yield from range(5)
        raise OSError("gone")

    taken = []
    with pytest.raises(OSError, match="gone"):
        taken.extend(Prefetcher(failing(), 2))
    assert list(Prefetcher(range(5), 2)) == list(range(5))


@pytest.mark.parametrize("fails_after", [0, 1, 10, None])
def test_a_consumer_that_fails_at_any_item_or_after_the_last_hangs_nobody(fails_after):
    """None: after the last item, as a shard that cannot be committed at the end does."""

    def consume(items):
        for taken, _ in enumerate(items):
            if taken == fails_after:
                raise OSError("full")
        raise OSError("full")

    with pytest.raises(OSError, match="full"), BackgroundWriter(consume, 2) as behind:
        for item in range(30):
            behind.put(item)


def test_work_begins_before_it_is_asked_for_and_ends_when_nobody_can_ask_any_more():
    made = []

    def endless():
        while True:
            made.append(threading.current_thread())
            yield len(made)

    items = Prefetcher(endless(), 2)
    while len(made) < 3:
        time.sleep(0.01)
    assert next(items) == 1
    thread = made[0]
    del items
    thread.join(60)
    assert not thread.is_alive()
