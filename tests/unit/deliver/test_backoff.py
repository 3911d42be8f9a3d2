"""How long a downstream is left alone."""

import pytest

from enricher.config.model import RetryConfig
from enricher.deliver import backoff as module
from enricher.deliver.backoff import Backoff
from enricher.errors import RetryableError


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def a_backoff(clock, **config):
    return Backoff(RetryConfig(**{"initial_interval": "5s", "max_interval": "30s", **config}), clock)


def until_free(backoff, clock):
    """Return the seconds that `pause` would wait."""
    return max(backoff._paused_until, backoff._throttled_until) - clock.now


def test_a_single_failure_makes_nobody_pause_but_new_requests_do_not_wait(clock):
    backoff = a_backoff(clock)
    backoff.failed()

    assert (backoff.is_troubled, backoff.is_away) == (True, False)
    assert until_free(backoff, clock) <= 0


def test_f01_failures_in_a_row_make_pauses_grow_up_to_the_initial_interval(clock):
    backoff, pauses = a_backoff(clock), []
    for _ in range(60):
        backoff.failed()
        pauses.append(until_free(backoff, clock))

    grown = pauses[module.SPARED :]
    assert grown == sorted(grown)
    assert (grown[0] < 0.1, grown[-1]) == (True, 5.0)
    assert backoff.is_away


async def test_an_answer_ends_the_pause_at_once(clock):
    backoff = a_backoff(clock)
    for _ in range(50):
        backoff.failed()
    backoff.succeeded()
    await backoff.pause()

    assert not backoff.is_troubled


def test_f05_what_downstream_wishes_holds_even_if_it_answers_somebody(clock):
    backoff = a_backoff(clock)
    backoff.failed(RetryableError(14, "", retry_delay=7.0))
    backoff.succeeded()

    assert until_free(backoff, clock) == 7.0
    assert backoff.is_troubled
    clock.now += 7.0
    assert not backoff.is_troubled


def test_cli_06_a_batch_waits_longer_each_time_with_jitter(clock):
    backoff = a_backoff(clock)
    for attempt, base in ((1, 5.0), (2, 7.5), (3, 11.25), (100_000, 30.0)):
        waits = [backoff.delay(attempt) for _ in range(200)]
        assert base * 0.5 <= min(waits) < max(waits) <= base * 1.5


def test_cli_06_a_batch_waits_at_least_as_long_as_downstream_wishes(clock):
    assert a_backoff(clock).delay(1, RetryableError(14, "", retry_delay=60.0)) == 60.0


@pytest.mark.parametrize(
    ("config", "age", "gives_up"),
    [
        ({}, 1e9, False),
        ({"max_elapsed_time": "5m"}, 299.0, False),
        ({"max_elapsed_time": "5m"}, 300.0, True),
        ({"enabled": False}, 0.0, True),
    ],
)
def test_when_it_gives_up(clock, config, age, gives_up):
    assert a_backoff(clock, **config).gives_up(age) is gives_up
