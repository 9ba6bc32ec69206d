"""A cancellation ends every wait, in every thread."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fluobook.waiting import Cancellation, Cancelled

BOUND = 10


def test_a_pause_in_another_thread_ends_at_once():
    cancellation, ended = Cancellation(), []

    def work():
        try:
            cancellation.pause(1000)
        except Cancelled:
            ended.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    cancellation.order()
    thread.join(BOUND)
    assert ended == [True]
    with pytest.raises(Cancelled):
        cancellation.check()


def test_a_pause_ends_by_itself():
    cancellation = Cancellation()
    cancellation.pause(0.001)
    cancellation.check()


def test_sigint_cancels_and_still_raises_keyboard_interrupt():
    cancellation = Cancellation()
    before = signal.getsignal(signal.SIGINT)

    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(BOUND)

    with pytest.raises(KeyboardInterrupt), cancellation.on_interrupt():
        interrupted()
    with pytest.raises(Cancelled):
        cancellation.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_next_attempt_is_not_cancelled():
    cancellation = Cancellation()
    cancellation.order()
    with cancellation.on_interrupt():
        cancellation.check()


def test_in_another_thread_signals_are_left_alone():
    cancellation, seen = Cancellation(), []

    def work():
        with cancellation.on_interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(BOUND)
    assert seen == [signal.getsignal(signal.SIGINT)]
