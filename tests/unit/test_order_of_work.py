"""The order in which several processes take the nodes of a run, and what each keeps in memory."""

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from fcbench.core.progress import Work
from fcbench.measure import workshop
from fcbench.measure.graph import Makes, Node
from fcbench.measure.run import urgent_first


def test_the_longest_chain_of_an_encoder_comes_first() -> None:
    def node(key: str, *needs: str, encoder: str = "a") -> Node:
        return Node(key, Makes.CODEC, key, encoder, needs=dict.fromkeys(needs, ()))

    nodes = [node("short"), node("long"), node("next", "long"), node("point", "next", "elsewhere")]
    nodes += [node("other", encoder="b")]
    seconds = {"short": 3, "long": 2, "next": 1, "point": 1, "other": 90}
    expected = {key: Work(s, ()) for key, s in seconds.items()}

    order = urgent_first({n.key: n for n in nodes}, expected)

    assert list(order) == ["long", "short", "next", "point", "other"]


def test_a_source_stays_in_memory_as_long_as_a_trial_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Source:
        pass

    monkeypatch.setattr(workshop, "Trial", lambda study, source, seed, report: SimpleNamespace(source=source))
    opened = list[weakref.ref[Source]]()

    def source(encoder: str, report: object) -> Source:
        made = Source()
        opened.append(weakref.ref(made))
        return made

    study: Any = SimpleNamespace(encoder=lambda name: name, source=source)
    report: Any = None
    shop = workshop.Workshop(study, report, None)
    for encoder, seed in (("a", 0), ("a", 1), ("b", 0), ("c", 0), ("d", 0), ("e", 0)):
        shop._trial(Node("key", Makes.POINT, "point", encoder, seed))
    gc.collect()
    assert [ref() is not None for ref in opened] == [False, True, True, True, True]
