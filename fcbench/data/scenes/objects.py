"""Objects of a procedural scene, each drawn part by part."""

from dataclasses import dataclass, field

import numpy as np

from fcbench.data.scenes.figure import Figure, limbs
from fcbench.data.scenes.render import Array, Canvas, capsule, ellipse, lambert, polygon, texture

CLASSES = ("background", "ground", "ball", "box", "cone", "barrel", "tree", "sign", "ring", "person")
KINDS = CLASSES[2:]
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.82, 0.12, 0.12),
    "orange": (0.95, 0.5, 0.1),
    "yellow": (0.93, 0.85, 0.15),
    "green": (0.15, 0.6, 0.2),
    "blue": (0.12, 0.3, 0.8),
    "purple": (0.55, 0.2, 0.65),
    "white": (0.92, 0.92, 0.9),
    "black": (0.1, 0.1, 0.12),
}
TEXTURES = ("plain", "striped", "checked", "dotted")
SIZES_M = {  # (width, height) range of a kind
    "ball": ((0.4, 1.1), None),
    "box": ((0.5, 1.2), (0.4, 1.3)),
    "cone": ((0.5, 1.0), (0.6, 1.5)),
    "barrel": ((0.4, 0.8), (0.6, 1.4)),
    "tree": ((0.9, 1.6), (1.6, 2.8)),
    "sign": ((0.5, 0.8), (1.3, 2.1)),
    "ring": ((0.6, 1.2), None),
    "person": ((0.5, 0.5), (1.35, 1.85)),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene, in metres; ``x_m`` is the offset from the optical axis."""

    kind: str
    x_m: float
    z_m: float
    width_m: float
    height_m: float
    colour: str
    colour2: str
    texture: str
    phase: float
    tint: tuple[float, float, float]
    variant: int
    figure: Figure | None = field(default=None)


def rgb_of(thing: Thing, second: bool = False) -> Array:
    """[3] colour of the thing."""
    base = np.array(COLOURS[thing.colour2 if second else thing.colour], np.float32)
    return np.clip(base + np.array(thing.tint, np.float32), 0.03, 1)


def draw(canvas: Canvas, thing: Thing, instance: int, light: Array, ambient: float) -> None:
    """Draw a thing: its parts into image, classes, instances, parts and depth."""
    brush = _Brush(canvas, thing, instance, light, ambient)
    _DRAW[thing.kind](brush)


class _Brush:
    """A canvas seen from one thing: base point (x, y) px on the ground, scale px/m, light, owner numbers."""

    def __init__(self, canvas: Canvas, thing: Thing, instance: int, light: Array, ambient: float) -> None:
        cam = canvas.camera
        self.canvas, self.thing, self.light, self.ambient = (canvas, thing, light, ambient)
        self.s = cam.scale(thing.z_m)
        self.x = cam.width_px / 2 + thing.x_m * self.s
        self.y = cam.ground_px(thing.z_m)
        self.w, self.h = thing.width_m * self.s, thing.height_m * self.s
        self.klass, self.instance = CLASSES.index(thing.kind), instance

    def surface(self, u: Array, v: Array, shade: Array | float, colour: Array | None = None) -> Array:
        """[h, w, 3] textured and shaded colour over surface coordinates."""
        m = texture(self.thing.texture, u, v, self.thing.phase)[..., None]
        first = rgb_of(self.thing) if colour is None else colour
        both = first * (1 - m) + rgb_of(self.thing, second=True) * m
        return both * np.asarray(shade, np.float32)[..., None]

    def paint(self, where, distance, rgb, depth, part: int) -> None:  # type: ignore[no-untyped-def]
        self.canvas.paint(where, distance, rgb, depth, (self.klass, self.instance, part))

    def tube(self, a: Array, b: Array, ra: float, rb: float, rgb: Array, part: int, lift_m: float = 0) -> None:
        """A shaded limb of one colour from a to b (px)."""
        r = max(ra, rb)
        got = self.canvas.window(min(a[0], b[0]) - r, min(a[1], b[1]) - r, max(a[0], b[0]) + r, max(a[1], b[1]) + r)
        if got is None:
            return
        where, xs, ys = got
        d, across = capsule(xs, ys, a, b, ra, rb)
        shade = lambert(across * 0.9, 0.1, self.light, self.ambient)
        self.paint(where, d, rgb * shade[..., None], self.thing.z_m - lift_m, part)


def _ball(b: _Brush) -> None:
    r = b.w / 2
    got = b.canvas.window(b.x - r, b.y - 2 * r, b.x + r, b.y)
    if got is None:
        return
    where, xs, ys = got
    nx, ny = (xs - b.x) / r, (b.y - r - ys) / r
    relief = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
    shade = lambert(np.clip(nx, -1, 1), np.clip(ny, -1, 1), b.light, b.ambient)
    shade = shade + 0.35 * np.clip(nx * b.light[0] + ny * b.light[1] + relief * b.light[2], 0, 1) ** 18
    u = np.arcsin(np.clip(nx, -1, 1)) * 2.2 + 0 * ny
    v = np.arcsin(np.clip(ny, -1, 1)) * 2.2 + 0 * nx
    depth = b.thing.z_m - relief * b.thing.width_m / 2
    b.paint(where, ellipse(xs, ys, b.x, b.y - r, r, r), b.surface(u, v, shade), depth, b.canvas.new_part())


def _box(b: _Brush) -> None:
    skew = (b.thing.phase - 0.5) * 0.9 * b.w  # visible side, and its width
    rise = 0.25 * b.w * b.s / (b.s + 40) + 0.06 * b.w
    x0, x1, y0, y1 = b.x - b.w / 2, b.x + b.w / 2, b.y, b.y - b.h
    side = x1 if skew > 0 else x0
    faces = [
        ([(side, y0), (side + skew, y0 - rise), (side + skew, y1 - rise), (side, y1)], 0.9 * np.sign(skew), 0.0, 0.3),
        ([(x0, y1), (x1, y1), (x1 + skew, y1 - rise), (x0 + skew, y1 - rise)], 0.0, 0.95, 0.3),
        ([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], 0.0, 0.0, 0.0),
    ]
    part = b.canvas.new_part()
    for points, nx, ny, back_m in faces:
        p = np.array(points, np.float32)
        got = b.canvas.window(p[:, 0].min(), p[:, 1].min(), p[:, 0].max(), p[:, 1].max())
        if got is None:
            continue
        where, xs, ys = got
        u, v = (xs - x0) / b.w * 3 + 0 * ys, (y0 - ys) / b.w * 3 + 0 * xs
        shade = lambert(nx, ny, b.light, b.ambient) * np.ones_like(u)
        b.paint(where, polygon(xs, ys, p), b.surface(u, v, shade), b.thing.z_m + back_m, part)


def _cone(b: _Brush) -> None:
    got = b.canvas.window(b.x - b.w / 2, b.y - b.h, b.x + b.w / 2, b.y + b.w * 0.12)
    if got is None:
        return
    where, xs, ys = got
    tri = np.array([(b.x, b.y - b.h), (b.x + b.w / 2, b.y), (b.x - b.w / 2, b.y)], np.float32)
    d = np.minimum(polygon(xs, ys, tri), ellipse(xs, ys, b.x, b.y, b.w / 2, b.w * 0.11))
    t = np.clip((ys - (b.y - b.h)) / b.h, 0.02, 1)
    across = np.clip((xs - b.x) / (t * b.w / 2), -1, 1)
    shade = lambert(across * 0.92, 0.3, b.light, b.ambient)
    u, v = np.arcsin(across) * 1.6, t * b.h / b.w * 4 + 0 * xs
    relief = np.sqrt(1 - across**2) * t * b.thing.width_m / 2
    b.paint(where, d, b.surface(u, v, shade), b.thing.z_m - relief, b.canvas.new_part())


def _barrel(b: _Brush) -> None:
    ry = b.w * 0.13
    got = b.canvas.window(b.x - b.w / 2, b.y - b.h - ry, b.x + b.w / 2, b.y + ry)
    if got is None:
        return
    where, xs, ys = got
    rect = np.array(
        [(b.x - b.w / 2, b.y), (b.x + b.w / 2, b.y), (b.x + b.w / 2, b.y - b.h), (b.x - b.w / 2, b.y - b.h)], np.float32
    )
    body = np.minimum(polygon(xs, ys, rect), ellipse(xs, ys, b.x, b.y, b.w / 2, ry))
    across = np.clip((xs - b.x) / (b.w / 2), -1, 1) + 0 * ys
    shade = lambert(across * 0.95, 0.0, b.light, b.ambient)
    u, v = np.arcsin(across) * 1.6, (b.y - ys) / b.w * 3.2 + 0 * xs
    depth = b.thing.z_m - np.sqrt(1 - across**2) * b.thing.width_m / 2
    part = b.canvas.new_part()
    b.paint(where, body, b.surface(u, v, shade), depth, part)
    lid = rgb_of(b.thing, second=b.thing.variant % 2 == 0) * lambert(0.0, 0.95, b.light, b.ambient)
    b.paint(where, ellipse(xs, ys, b.x, b.y - b.h, b.w / 2, ry), lid, b.thing.z_m, part)


def _tree(b: _Brush) -> None:
    trunk = np.array((0.36, 0.24, 0.14), np.float32)
    foot, top = np.array((b.x, b.y)), np.array((b.x, b.y - b.h * 0.55))
    b.tube(foot, top, b.w * 0.08, b.w * 0.06, trunk, b.canvas.new_part())
    part = b.canvas.new_part()
    leaf = rgb_of(b.thing)
    rng = np.random.default_rng(b.thing.variant)
    for i in range(4):
        ox, oy, r = (rng.uniform(-0.25, 0.25), rng.uniform(0.55, 0.82), rng.uniform(0.28, 0.42))
        cx, cy, r = b.x + ox * b.w, b.y - oy * b.h, r * b.w
        got = b.canvas.window(cx - r, cy - r, cx + r, cy + r)
        if got is None:
            continue
        where, xs, ys = got
        nx, ny = (xs - cx) / r, (cy - ys) / r
        bump = 0.09 * r * np.sin(7 * np.arctan2(ny, nx) + i)
        speckle = 0.85 + 0.15 * np.sin(xs * 60 / b.w + i) * np.sin(ys * 53 / b.w)
        shade = lambert(np.clip(nx, -1, 1) * 0.8, np.clip(ny, -1, 1) * 0.8, b.light, b.ambient) * speckle
        d = ellipse(xs, ys, cx, cy, r, r) + bump
        b.paint(where, d, leaf * shade[..., None], b.thing.z_m - 0.2, part)


def _sign(b: _Brush) -> None:
    grey = np.array((0.55, 0.55, 0.58), np.float32)
    r = b.w / 2
    cx, cy = b.x, b.y - b.h + r
    b.tube(np.array((b.x, b.y)), np.array((cx, cy)), b.w * 0.06, b.w * 0.06, grey, b.canvas.new_part())
    got = b.canvas.window(cx - r, cy - r, cx + r, cy + r)
    if got is None:
        return
    where, xs, ys = got
    n = (3, 4, 6, 40)[b.thing.variant % 4]
    angles = 2 * np.pi * (np.arange(n) / n) + (np.pi / 2 if n == 3 else np.pi / 4 if n == 4 else 0)
    ring = np.stack((cx + r * np.cos(angles), cy - r * np.sin(angles)), 1).astype(np.float32)
    d = polygon(xs, ys, ring)
    u, v = (xs - cx) / r * 2 + 0 * ys, (ys - cy) / r * 2 + 0 * xs
    shade = lambert(0.0, 0.0, b.light, b.ambient) * np.ones_like(u)
    rgb = b.surface(u, v, shade)
    rim = np.clip(d + 0.22 * r, 0, 1)[..., None]
    rgb = rgb * (1 - rim) + rim * rgb_of(b.thing, second=True) * shade[..., None]
    b.paint(where, d, rgb, b.thing.z_m - 0.03, b.canvas.new_part())


def _ring(b: _Brush) -> None:
    r = b.w / 2
    cy, thick = b.y - r, r * 0.3
    got = b.canvas.window(b.x - r, b.y - 2 * r, b.x + r, b.y)
    if got is None:
        return
    where, xs, ys = got
    radius = np.hypot(xs - b.x, ys - cy)
    middle = r - thick
    across = np.clip((radius - middle) / thick, -1, 1)
    nx, ny = across * (xs - b.x) / np.maximum(radius, 1e-3), across * (cy - ys) / np.maximum(radius, 1e-3)
    shade = lambert(nx, ny, b.light, b.ambient)
    angle = np.arctan2(cy - ys, xs - b.x)
    depth = b.thing.z_m - np.sqrt(1 - across**2) * b.thing.width_m * 0.15
    d = np.abs(radius - middle) - thick
    b.paint(where, d, b.surface(angle * 2.55, across, shade), depth, b.canvas.new_part())


def _person(b: _Brush) -> None:
    assert b.thing.figure is not None
    colours = {"shirt": rgb_of(b.thing), "trousers": rgb_of(b.thing, second=True)}
    numbers: dict[str, int] = {}
    for limb in limbs(b.thing.figure, b.x, b.y, b.h):
        part = numbers.setdefault(limb.part, 0) or b.canvas.new_part()
        numbers[limb.part] = part
        rgb = colours[limb.colour] if isinstance(limb.colour, str) else np.array(limb.colour, np.float32)
        b.tube(limb.a, limb.b, limb.ra, limb.rb, rgb, part, lift_m=limb.lift_m)


_DRAW = {
    "ball": _ball,
    "box": _box,
    "cone": _cone,
    "barrel": _barrel,
    "tree": _tree,
    "sign": _sign,
    "ring": _ring,
    "person": _person,
}
