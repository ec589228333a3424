"""Descriptions of a procedural scene: its label, its attributes, five captions."""

import numpy as np

from fcbench.data.scenes.figure import Figure
from fcbench.data.scenes.objects import KINDS, Thing
from fcbench.data.scenes.render import Rng
from fcbench.data.scenes.scene import Rendered, Scene


def prominent(rendered: Rendered) -> list[Thing]:
    """Things that are visible enough to be mentioned, most visible first."""
    floor = 0.002 * rendered.image.shape[1] * rendered.image.shape[2]
    order = np.argsort([-v for v in rendered.visible], kind="stable")
    return [rendered.scene.things[i] for i in order if rendered.visible[i] > floor]


def label(rendered: Rendered) -> int:
    """Index in `KINDS` of the most visible thing: the target of classification."""
    most = int(np.argmax(rendered.visible))
    return KINDS.index(rendered.scene.things[most].kind)


def _x(thing: Thing) -> float:
    """Horizontal position in image widths from the middle, up to the focal length."""
    return thing.x_m / thing.z_m


_NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_PLURAL = {"person": "people", "box": "boxes"}


def _noun(thing: Thing, full: bool) -> str:
    if thing.figure is not None:
        words = "person"
        if full:
            words += f" in a {thing.colour} shirt"
        return "a " + words
    surface = f"{thing.texture} " if full and thing.texture != "plain" else ""
    words = f"{surface}{thing.colour} {thing.kind}"
    return ("an " if words[0] in "aeiou" else "a ") + words


def _relation(a: Thing, b: Thing, rng: Rng) -> str:
    dx, dz = _x(a) - _x(b), a.z_m - b.z_m
    if abs(dx) > 0.1:
        side = "left" if dx < 0 else "right"
        return (f"{side} of", f"to the {side} of")[rng.integers(2)]
    if abs(dz) > 0.6:
        return "in front of" if dz < 0 else "behind"
    return "next to"


def _place(scene: Scene, rng: Rng) -> str:
    inside = ("in a room", "in front of a wall", "indoors")[rng.integers(3)]
    outside = ("outdoors", "under the sky", "in the open")[rng.integers(3)]
    ground = f"on {'the ' if rng.random() < 0.5 else ''}{scene.ground}"
    return ground if rng.random() < 0.5 else inside if scene.indoor else outside


def _action(figure: Figure) -> str:
    raised = figure.arms.count("up")
    if raised == 2:
        return "with both arms up"
    if raised == 1:
        return "with one arm up"
    if figure.arms.count("out") == 2:
        return "with both arms out"
    return {"standing": "standing", "striding": "walking", "lunging": "lunging"}[figure.legs]


def captions(rendered: Rendered) -> tuple[str, ...]:
    """Five reference captions from a small grammar."""
    scene = rendered.scene
    rng = np.random.default_rng((*scene.seed, 2))
    seen = prominent(rendered)
    if not seen:
        return tuple(f"nothing stands {_place(scene, rng)}" for _ in range(5))
    counts: dict[str, int] = {}
    for thing in seen:
        counts[thing.kind] = counts.get(thing.kind, 0) + 1
    listed = [
        f"{_NUMBERS[min(n, 6)]} {kind if n == 1 else _PLURAL.get(kind, kind + 's')}" for kind, n in counts.items()
    ][:3]
    listing = " and ".join([", ".join(listed[:-1]), listed[-1]]) if len(listed) > 1 else listed[0]
    first, second = seen[0], seen[min(1, len(seen) - 1)]
    nearest = min(seen, key=lambda t: t.z_m)
    pair = (
        f"{_noun(first, True)} {_relation(first, second, rng)} {_noun(second, False)}"
        if second is not first
        else f"{_noun(first, True)} alone {_place(scene, rng)}"
    )
    turned = (
        f"{_noun(second, True)} {_relation(second, first, rng)} {_noun(first, False)}"
        if second is not first
        else f"one {first.kind} {_place(scene, rng)}"
    )
    people = [t for t in seen if t.figure is not None]
    if people and people[0].figure is not None:
        fourth = f"a person {_action(people[0].figure)} {_place(scene, rng)}"
    else:
        fourth = f"{_noun(nearest, False)} and no person {_place(scene, rng)}"
    return (
        pair,
        f"{listing} {_place(scene, rng)}",
        fourth,
        turned,
        f"{_noun(nearest, True)} close to the camera {_place(scene, rng)}",
    )
