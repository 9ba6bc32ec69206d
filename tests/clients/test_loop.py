"""The background loop: blocking code on top of asynchronous sources."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest

from fluobook.clients.loop import background


async def numbers(stop: threading.Event, *, until: int = 10**9):
    try:
        for number in range(until):
            await asyncio.sleep(0)
            yield number
    finally:
        stop.set()


def test_results_and_errors_come_back():
    async def divide(by):
        return 6 / by

    assert background().run(divide(2)) == 3
    with pytest.raises(ZeroDivisionError):
        background().run(divide(0))


def test_there_is_one_loop_for_the_process():
    assert background() is background()


def test_items_keep_their_order_and_end():
    assert list(background().iterate(numbers(threading.Event(), until=5000), ahead=7)) == list(range(5000))


def test_closing_early_ends_the_source():
    ended = threading.Event()
    items = background().iterate(numbers(ended))
    assert list(itertools.islice(items, 3)) == [0, 1, 2]
    items.close()
    assert ended.wait(5)


def test_a_source_does_not_run_ahead_without_bound():
    produced = []

    async def source():
        for number in range(1000):
            produced.append(number)
            yield number

    items = background().iterate(source(), ahead=10)
    next(items)
    background().run(asyncio.sleep(0.05))
    assert len(produced) < 100
    items.close()


def test_an_error_in_the_source_reaches_the_reader_after_its_items():
    async def source():
        yield 1
        raise ValueError("broke")

    items = background().iterate(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="broke"):
        next(items)


def test_many_threads_share_one_loop():
    async def double(number):
        await asyncio.sleep(0.01)
        return number * 2

    results = {}

    def work(number):
        results[number] = background().run(double(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == {number: number * 2 for number in range(50)}
