"""How long a run still takes: a forecast, corrected by what its finished stages really took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LEAST = 0.05  # A stage under way counts as evidence from this share of it on


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage should take."""

    expected_s: float  # seconds that it should take
    # stages that resemble it, the most similar first: the first pool in which anything was done corrects the forecast
    pools: tuple[str, ...]
    gradual: bool = True  # the share of its part that is done is the share of its time


@dataclass(frozen=True, slots=True)
class Running:
    """A stage under way."""

    key: str  # of its work
    took_s: float  # so far
    share: float = 0.0  # of it that is done, 0 to 1; 0 where that is not known


class Eta:
    """What remains of a run.

    Each pool knows what its finished stages should have taken and what they took. The ratio corrects the stages that
    are left. Finished seconds over elapsed ones say how many stages are done at a time.

    >>> eta = Eta({name: Work(10, ("training",)) for name in "abc"})
    >>> eta.finish("a", 20)
    >>> eta.left_s(20)
    40.0
    """

    def __init__(self, works: Mapping[str, Work]) -> None:
        self._works = works
        self._left: dict[tuple[str, ...], float] = {}
        self._pools: dict[str, tuple[float, float]] = {}  # seconds taken and expected
        self._took_s = 0.0
        for work in works.values():
            self._left[work.pools] = self._left.get(work.pools, 0.0) + work.expected_s

    def finish(self, key: str, took_s: float) -> None:
        """Count a stage that is done; one that took no time, as it failed, tells nothing of others."""
        work = self._works[key]
        self._left[work.pools] -= work.expected_s
        self._took_s += took_s
        if took_s:
            _add(self._pools, work, took_s, work.expected_s)

    def left_s(self, elapsed_s: float, running: Iterable[Running] = ()) -> float:
        """Seconds that remain. `elapsed_s`: since the first stage began. `running`: the stages under way, as far as
        they are known."""
        pools, left, took_s = dict(self._pools), dict(self._left), self._took_s
        for stage in running:
            work = self._works[stage.key]
            took_s += stage.took_s
            if stage.share >= LEAST:
                _add(pools, work, stage.took_s, stage.share * work.expected_s)
                left[work.pools] -= stage.share * work.expected_s
            else:
                left[work.pools] -= min(work.expected_s, stage.took_s / _ratio(pools, work.pools))
        serial_s = sum(seconds * _ratio(pools, own) for own, seconds in left.items())
        at_once = took_s / elapsed_s if took_s and elapsed_s else 1.0
        return max(0.0, serial_s) / at_once


def _add(pools: dict[str, tuple[float, float]], work: Work, took_s: float, expected_s: float) -> None:
    for name in work.pools:
        took, expected = pools.get(name, (0.0, 0.0))
        pools[name] = took + took_s, expected + expected_s


def _ratio(pools: Mapping[str, tuple[float, float]], names: Iterable[str]) -> float:
    """Seconds taken per second expected, in the first pool that knows; 1 where none does."""
    return next((pools[name][0] / pools[name][1] for name in names if name in pools), 1.0)
