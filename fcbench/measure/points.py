"""The points of a suite: every operating point of every codec, image codec and label coder, and the curves' ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fcbench.core import registry
from fcbench.core.codecs import ENDS, LABEL, Kind, OperatingPoint, codec_kind
from fcbench.measure.suite import Suite


@dataclass(frozen=True, slots=True)
class Job:
    """One operating point and the tasks that read it."""

    kind: Kind
    point: OperatingPoint
    tasks: tuple[str, ...]
    fitted_to: str | None = None  # the task whose loss trained the codec

    @property
    def trained(self) -> bool:
        """Whether the codec is trained."""
        return self.kind == Kind.CODED and bool(registry.get("codec", self.point.codec).trained)


def jobs(suite: Suite) -> list[Job]:
    """Operating points of a suite for one encoder and seed, the ends of the curves first."""
    out = [Job(kind, point, suite.tasks) for kind, point in ENDS.items()]
    for codec in suite.codecs:
        if codec == LABEL:
            out += [Job(Kind.LABEL, OperatingPoint(LABEL), (t,)) for t in suite.tasks]
            continue
        kind, name = codec_kind(codec)
        plugin = registry.get(kind, name)
        sweep = plugin.sweep(suite.objective) if kind == "codec" else plugin.sweep()
        for params in suite.params.get(codec) or sweep:
            point = OperatingPoint(codec, dict(params))
            if kind == "image":
                out.append(Job(Kind.REMOTE, point, suite.tasks))
            elif suite.objective != "mse" and plugin.trained:
                out += [Job(Kind.CODED, point, (t,), fitted_to=t) for t in suite.tasks]
            else:
                out.append(Job(Kind.CODED, point, suite.tasks))
    return out


def starts_of(suite: Suite, point: OperatingPoint) -> tuple[OperatingPoint, ...]:
    """The operating points that a codec's training starts from, the nearest first; empty if it starts from scratch."""
    plugin = registry.get("codec", point.codec)
    if not plugin.continued:
        return ()
    points = suite.params.get(point.codec) or plugin.sweep(suite.objective)
    lmbdas = {float(p["lmbda"]): p["lmbda"] for p in points}
    way = [lmbdas[lmbda] for lmbda in to_middle(lmbdas, float(point.params["lmbda"]))]
    return tuple(OperatingPoint(point.codec, {**point.params, "lmbda": lmbda}) for lmbda in way)


def to_middle(lmbdas: Iterable[float], lmbda: float) -> list[float]:
    """The lmbdas between one of them and the middle one, which is included.

    >>> [to_middle([1, 2, 3, 4], lmbda) for lmbda in (1, 2, 3, 4)]
    [[2, 3], [3], [], [3]]
    """
    order = sorted(lmbdas)
    at, middle = order.index(lmbda), len(order) // 2
    return order[at + 1 : middle + 1] if at < middle else order[middle:at][::-1]


def lmbdas_of(suite: Suite, codec: str) -> tuple[float, ...]:
    """Lowest and highest lmbda of a codec of variable rate, between which one training serves all points; empty for any
    other codec."""
    plugin = registry.get("codec", codec)
    if not plugin.variable:
        return ()
    points = [*plugin.sweep(suite.objective), *suite.params.get(codec, ())]
    lmbdas = [float(p["lmbda"]) for p in points]
    return min(lmbdas), max(lmbdas)
