"""Times of calls that are compared with each other."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

# Some turns, so that a machine whose speed drifts is equally fast for all.
_ROUNDS = 5

Name = TypeVar("Name", bound=Hashable)


def fastest_seconds(
    calls: Mapping[Name, Callable[[], Any]], rounds: int = _ROUNDS
) -> dict[Name, float]:
    """Times calls in turns; returns the seconds of each one's fastest turn.

    A first turn, in which a graph is traced and compiled, does not count.

    Args:
        calls: functions that return when their work is done, by name.
        rounds: int >= 1, turns that count.
    """
    fastest = dict.fromkeys(calls, float("inf"))
    for number in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds = time.perf_counter() - started
            if number > 0:
                fastest[name] = min(fastest[name], seconds)
    return fastest
