"""Results come in order, few at a time, and what nobody takes is not begun."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count

import pytest

from geopsp.core.parallel import cpu_count, map_ordered, prefetch


@pytest.mark.parametrize("in_flight", [1, 2, 3, 50])
def test_results_come_in_order(in_flight):
    def work(number):
        time.sleep(0.002 * (number % 3 == 0))  # every third one is late
        return number * number

    with ThreadPoolExecutor(3) as pool:
        assert list(map_ordered(pool, work, range(20), in_flight=in_flight)) == [n * n for n in range(20)]
        assert list(map_ordered(pool, work, [], in_flight=in_flight)) == []


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_few_items_are_begun_at_a_time(in_flight):
    begun, taken = [], 0
    with (
        ThreadPoolExecutor(8) as pool,
        closing(map_ordered(pool, begun.append, count(), in_flight=in_flight)) as results,
    ):
        for _ in results:
            taken += 1
            time.sleep(0.005)
            assert len(begun) <= taken - 1 + in_flight
            if taken == 10:
                break


def test_items_are_asked_for_only_as_they_are_needed():
    asked = []

    def items():
        for number in range(100):
            asked.append(number)
            yield number

    with ThreadPoolExecutor(1) as pool, closing(map_ordered(pool, abs, items(), in_flight=3)) as results:
        assert asked == []
        next(results)
        assert asked == [0, 1, 2]
        next(results)
        assert asked == [0, 1, 2, 3]


def test_closing_cancels_what_has_not_begun():
    begun, gate = [], threading.Event()

    def work(number):
        begun.append(number)
        if number:
            gate.wait(10)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = map_ordered(pool, work, range(6), in_flight=5)
        assert next(results) == 0
        results.close()
        gate.set()
    assert begun in ([0], [0, 1]), "one may have begun, the others were cancelled"


def test_an_error_of_the_work_is_raised_in_its_turn_and_cancels_the_rest():
    begun = []

    def work(number):
        begun.append(number)
        if number == 2:
            raise ZeroDivisionError("two")
        return number

    with ThreadPoolExecutor(1) as pool:
        results = map_ordered(pool, work, range(1000), in_flight=4)
        assert (next(results), next(results)) == (0, 1)
        with pytest.raises(ZeroDivisionError, match="two"):
            next(results)
        assert next(results, "end") == "end"
    assert len(begun) < 10


def test_an_error_of_the_items_is_raised():
    def items():
        yield 1
        raise KeyError("broken")

    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(KeyError, match="broken"):
            list(map_ordered(pool, abs, items(), in_flight=3))
        with pytest.raises(KeyError, match="broken"):
            list(prefetch(items()))


def test_prefetched_items_come_in_order_also_none():
    assert list(prefetch(iter([3, None, 1, ()]))) == [3, None, 1, ()]
    assert list(prefetch(iter(()))) == []


def test_the_next_item_is_made_while_one_is_used():
    made = [threading.Event() for _ in range(4)]

    def items():
        for event in made:
            event.set()
            yield event

    with closing(prefetch(items())) as results:
        next(results)
        assert made[1].wait(10)
        time.sleep(0.01)
        assert not made[2].is_set(), "one ahead, no more"


def test_prefetching_ends_its_thread():
    before = threading.active_count()
    with closing(prefetch(count())) as numbers:
        assert next(numbers) == 0
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert cpu_count() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cpu_count() == 1
