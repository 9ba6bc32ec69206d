"""Waiting for a condition, repeating a call, and the cancellation that ends both."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fluobook.errors import AccessDenied, DeadlineExceeded, NotFound, Unreachable
from fluobook.waiting import Backoff, Cancellation, Cancelled, retry, wait_until

AWAY = Unreachable("the server does not answer", system="talos", code="ECONNREFUSED")
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
    before = signal.default_int_handler
    inherited = signal.signal(signal.SIGINT, before)  # other tests of this process may have left another

    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(BOUND)

    with pytest.raises(KeyboardInterrupt), cancellation.on_interrupt():
        interrupted()
    with pytest.raises(Cancelled):
        cancellation.check()
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, inherited)


def test_the_next_attempt_is_not_cancelled():
    cancellation = Cancellation()
    cancellation.order()
    with cancellation.on_interrupt():
        cancellation.check()


def test_in_another_thread_signals_are_left_alone():
    cancellation, handlers = Cancellation(), []

    def work():
        with cancellation.on_interrupt():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(BOUND)
    assert handlers == [signal.getsignal(signal.SIGINT)]


class Source:
    """Raises or returns each of the given values in turn, the last one for ever."""

    def __init__(self, *answers: object) -> None:
        self.answers, self.calls = list(answers), 0

    def __call__(self) -> object:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def wait(source: Source, timeout: float = 5.0, **more: object) -> object:
    more = {"interval": 0.001, "cancellation": Cancellation(), **more}
    return wait_until(source, what="a node", timeout=timeout, **more)


def test_a_wait_ends_with_the_first_value_that_is_not_none() -> None:
    assert wait(Source(None, AWAY, 0, 1)) == 0


def test_a_timeout_names_the_wait_and_is_raised_from_the_last_error() -> None:
    with pytest.raises(DeadlineExceeded, match=r"timed out after 0\.02 s waiting for a node") as late:
        wait(Source(None, AWAY), timeout=0.02, remedy="look at it")
    assert (late.value.cause, late.value.remedy) == (AWAY.message, "look at it")
    assert late.value.__cause__ is AWAY


def test_the_condition_is_checked_a_last_time_at_the_deadline() -> None:
    source = Source(None, 7)
    assert wait(source, timeout=0.01, interval=lambda _waited: 60.0) == 7
    assert source.calls == 2


@pytest.mark.parametrize(("error", "final"), [(AccessDenied("no", system="talos"), ()), (AWAY, (Unreachable,))])
def test_a_final_error_ends_a_wait_at_once(error: Exception, final: tuple[type, ...]) -> None:
    source = Source(error)
    with pytest.raises(type(error)):
        wait(source, final=final)
    assert source.calls == 1


def test_a_cancelled_wait_ends_at_once() -> None:
    cancellation = Cancellation()
    threading.Timer(0.01, cancellation.order).start()
    with pytest.raises(Cancelled):
        wait(Source(None), timeout=60, cancellation=cancellation, interval=30)


def test_a_call_is_repeated_while_its_error_may_pass() -> None:
    source = Source(AWAY, AWAY, 7)
    assert retry(source, if_error=lambda error: isinstance(error, Unreachable), pauses=(0, 0)) == 7
    assert source.calls == 3


def test_the_last_error_is_raised_when_the_repetitions_are_used_up() -> None:
    source = Source(AWAY)
    with pytest.raises(Unreachable):
        retry(source, if_error=lambda _error: True, pauses=(0, 0))
    assert source.calls == 3


def test_another_error_is_not_repeated() -> None:
    source = Source(NotFound("no", system="talos"))
    with pytest.raises(NotFound):
        retry(source, if_error=lambda error: isinstance(error, Unreachable), pauses=(0, 0))
    assert source.calls == 1


def test_a_backoff_grows_to_its_longest_pause_and_starts_again_after_a_reset() -> None:
    backoff = Backoff(0.2, 1.0)
    assert [backoff.next() for _ in range(4)] == [0.2, 0.4, 0.8, 1.0]
    backoff.reset()
    assert backoff.next() == 0.2
