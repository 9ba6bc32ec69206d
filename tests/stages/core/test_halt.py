"""An interrupt ends every wait, in every thread."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fluobook.stages.core.halt import Halt, Halted

BOUND = 10


def test_a_pause_in_another_thread_ends_at_once():
    halt, ended = Halt(), []

    def work():
        try:
            halt.pause(1000)
        except Halted:
            ended.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    halt.order()
    thread.join(BOUND)
    assert ended == [True]
    with pytest.raises(Halted):
        halt.check()


def test_a_pause_that_nobody_breaks_off_just_ends():
    halt = Halt()
    halt.pause(0.001)
    halt.check()


def test_sigint_orders_the_halt_and_still_raises_keyboard_interrupt():
    halt = Halt()
    before = signal.getsignal(signal.SIGINT)

    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(BOUND)

    with pytest.raises(KeyboardInterrupt), halt.on_interrupt():
        interrupted()
    with pytest.raises(Halted):
        halt.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_next_attempt_begins_anew():
    halt = Halt()
    halt.order()
    with halt.on_interrupt():
        halt.check()


def test_in_another_thread_signals_are_left_alone():
    halt, seen = Halt(), []

    def work():
        with halt.on_interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(BOUND)
    assert seen == [signal.getsignal(signal.SIGINT)]
