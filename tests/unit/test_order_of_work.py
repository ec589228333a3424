"""The order in which several processes take the nodes of a run."""

from fcbench.core.progress import Work
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
