"""Procedural scenes: sampled by (split, index), rendered with exact ground truth, described in words.

The same (split, index, size) gives the same scene. Bump `VERSION`, which is part of the data set's revision, whenever
a pixel, a target or a word changes.
"""

from dataclasses import dataclass

import numpy as np

from fcbench.core.samples import COCO_KEYPOINTS, Pose
from fcbench.data.scenes import figure, objects
from fcbench.data.scenes.objects import COLOURS, KINDS, SIZES_M, TEXTURES, Thing
from fcbench.data.scenes.render import Array, Camera, Canvas, Rng, ellipse, finish, noise

VERSION = 1
SPLITS = {"train": 0, "test": 1, "embedded": 2}
"""Seeds of the splits; the embedded encoders were trained on ``embedded``, which is disjoint from the others."""
GROUNDS = ("grass", "sand", "asphalt", "tiles")
MAX_DEPTH_M = 15.0
_GROUND_RGB = {
    "grass": (0.3, 0.48, 0.2),
    "sand": (0.76, 0.68, 0.48),
    "asphalt": (0.38, 0.38, 0.4),
    "tiles": (0.62, 0.55, 0.5),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that determines an image except its size."""

    seed: tuple[int, int, int]
    indoor: bool
    ground: str
    focal: float  # in image widths
    horizon: float  # in image heights
    camera_m: float
    wall_m: float
    light: tuple[float, float, float]
    ambient: float
    things: tuple[Thing, ...]  # far to near


@dataclass(frozen=True, slots=True)
class Rendered:
    """An image with all its ground truth.

    image [3, H, W] uint8; classes, instances, parts [H, W] uint8; depth [H, W] float32 metres, 0 for the sky.
    ``visible[i]`` is the number of visible pixels of ``scene.things[i]``, which has instance number i + 1.
    """

    scene: Scene
    image: Array
    classes: Array
    instances: Array
    parts: Array
    depth: Array
    pose: Pose
    visible: tuple[int, ...]


def sample_scene(split: str, index: int) -> Scene:
    """The scene of a split's index."""
    seed = (VERSION, SPLITS[split], index)
    rng = np.random.default_rng(seed)
    light = np.array((rng.uniform(-0.8, 0.8), rng.uniform(0.25, 0.9), rng.uniform(0.2, 0.8)))
    light /= np.linalg.norm(light)
    wall_m = float(rng.uniform(7, MAX_DEPTH_M - 1))
    camera_m = float(rng.uniform(1.1, 2.1))
    focal = float(rng.uniform(0.95, 1.3))
    things = [_sample_thing(rng, kind, focal, wall_m) for kind in _sample_kinds(rng)]
    return Scene(
        seed=seed,
        indoor=bool(rng.random() < 0.5),
        ground=GROUNDS[rng.integers(4)],
        focal=focal,
        horizon=float(rng.uniform(0.28, 0.46)),
        camera_m=camera_m,
        wall_m=wall_m,
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=float(rng.uniform(0.3, 0.55)),
        things=tuple(sorted(things, key=lambda t: -t.z_m)),
    )


def _sample_kinds(rng: Rng) -> list[str]:
    others = [k for k in KINDS if k != "person"]
    persons = int(rng.choice(3, p=(0.15, 0.6, 0.25)))
    return ["person"] * persons + [others[i] for i in rng.integers(len(others), size=rng.integers(2, 6))]


def _sample_thing(rng: Rng, kind: str, focal: float, wall_m: float) -> Thing:
    z = float(np.clip(2.3 * np.exp(rng.uniform(0, 1.15)), 2.3, wall_m - 0.8))
    (w0, w1), heights = SIZES_M[kind]
    width = float(rng.uniform(w0, w1))
    height = width if heights is None else float(rng.uniform(*heights))
    names = tuple(COLOURS)
    first, second = rng.choice(len(names), 2, replace=False)
    return Thing(
        kind=kind,
        x_m=float(rng.uniform(-0.44, 0.44) * z / focal),
        z_m=z,
        width_m=width,
        height_m=height,
        colour=names[first],
        colour2=names[second],
        texture="plain" if kind in ("tree", "person") else TEXTURES[rng.integers(4)],
        phase=float(rng.random()),
        tint=tuple(float(t) for t in rng.normal(0, 0.05, 3)),  # type: ignore[arg-type]
        variant=int(rng.integers(1 << 16)),
        figure=figure.sample(rng) if kind == "person" else None,
    )


def render(scene: Scene, height_px: int, width_px: int) -> Rendered:
    """Render a scene at a size."""
    rng = np.random.default_rng((*scene.seed, 1))
    camera = Camera(height_px, width_px, scene.focal * width_px, scene.horizon * height_px, scene.camera_m)
    canvas = Canvas(camera)
    _backdrop(canvas, scene, rng)
    _clutter(canvas, rng)
    light = np.array(scene.light)
    for thing in scene.things:
        _shadow(canvas, thing, light, scene.ambient)
    for number, thing in enumerate(scene.things, 1):
        objects.draw(canvas, thing, number, light, scene.ambient)
    counts = np.bincount(canvas.instances.ravel(), minlength=len(scene.things) + 1)
    return Rendered(
        scene=scene,
        image=finish(canvas.rgb, rng),
        classes=canvas.classes,
        instances=canvas.instances,
        parts=canvas.parts,
        depth=canvas.depth,
        pose=_pose(scene, canvas),
        visible=tuple(int(c) for c in counts[1:]),
    )


def _backdrop(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    cam = canvas.camera
    h, w = cam.height_px, cam.width_px
    foot = min(max(int(round(cam.ground_px(scene.wall_m))), 1), h)
    tone = rng.uniform(0.35, 0.85, 3) if scene.indoor else np.array((0.45, 0.62, 0.85)) + rng.normal(0, 0.08, 3)
    rows = np.linspace(1.12, 0.9, foot)[:, None, None]
    grain = noise(rng, foot, w, 6)[..., None] * (0.08 if scene.indoor else 0.14)
    canvas.rgb[:foot] = np.clip(tone * rows + grain, 0, 1)
    if scene.indoor:
        canvas.depth[:foot] = scene.wall_m
        _posters(canvas, foot, rng)
    ys = np.arange(foot, h, dtype=np.float32) + 0.5
    z = np.minimum(cam.focal_px * cam.height_m / np.maximum(ys - cam.horizon_px, 0.5), scene.wall_m)
    canvas.depth[foot:] = z[:, None]
    canvas.classes[foot:] = 1
    base = np.array(_GROUND_RGB[scene.ground]) + rng.normal(0, 0.06, 3)
    grain = noise(rng, h, w, 9)[foot:] * 0.1 + noise(rng, h, w, 50)[foot:] * 0.12
    if scene.ground == "tiles":
        x = (np.arange(w)[None] + 0.5 - w / 2) / cam.focal_px * z[:, None]
        grain = grain * 0.4 + 0.09 * ((np.floor(x * 1.5) + np.floor(z[:, None] * 1.5)) % 2)
    canvas.rgb[foot:] = np.clip(base + grain[..., None], 0, 1)


def _posters(canvas: Canvas, foot: int, rng: Rng) -> None:
    w = canvas.camera.width_px
    for _ in range(rng.integers(0, 4)):
        r = rng.uniform(0.03, 0.1) * w
        cx, cy = rng.uniform(0, w), rng.uniform(0, foot)
        got = canvas.window(cx - r, cy - r, cx + r, min(cy + r, foot - 2))
        if got is None:
            continue
        where, xs, ys = got
        square = np.maximum(np.abs(xs - cx), np.abs(ys - cy) * rng.uniform(0.7, 1.4)) - r
        inner = ellipse(xs, ys, cx, cy, r * 0.6, r * 0.6)
        alpha = np.clip(0.5 - square, 0, 1)[..., None]
        colours = rng.uniform(0.1, 0.95, (2, 3))
        rgb = np.where(inner[..., None] < 0, colours[0], colours[1])
        canvas.rgb[where] += alpha * (rgb - canvas.rgb[where])


def _clutter(canvas: Canvas, rng: Rng) -> None:
    cam = canvas.camera
    for _ in range(rng.integers(6, 24)):
        z = rng.uniform(2, 9)
        cx, cy = rng.uniform(0, cam.width_px), cam.ground_px(z)
        rx = rng.uniform(0.02, 0.12) * cam.scale(z)
        ry = rx * rng.uniform(0.3, 0.7)
        got = canvas.window(cx - rx, cy - ry, cx + rx, cy + ry)
        if got is None:
            continue
        where, xs, ys = got
        alpha = (
            np.clip(0.5 - ellipse(xs, ys, cx, cy, rx, ry), 0, 1)[..., None] * (canvas.classes[where] == 1)[..., None]
        )
        canvas.rgb[where] += alpha * (rng.uniform(0.05, 0.9, 3) - canvas.rgb[where])


def _shadow(canvas: Canvas, thing: Thing, light: Array, ambient: float) -> None:
    cam = canvas.camera
    s, y = cam.scale(thing.z_m), cam.ground_px(thing.z_m)
    reach = min(thing.height_m * 0.6, 1.2) * s
    rx, ry = (thing.width_m * s * 0.55 + abs(light[0]) * reach * 0.5, thing.width_m * s * 0.16)
    cx = cam.width_px / 2 + thing.x_m * s - light[0] * reach * 0.6
    got = canvas.window(cx - rx, y - ry, cx + rx, y + ry)
    if got is None:
        return
    where, xs, ys = got
    d = np.hypot((xs - cx) / rx, (ys - y) / ry)
    dark = np.clip(1.15 - d, 0, 0.6) * (1 - ambient) * 1.3 * (canvas.classes[where] == 1)
    canvas.rgb[where] *= 1 - dark[..., None]


def _pose(scene: Scene, canvas: Canvas) -> Pose:
    cam = canvas.camera
    keypoints, boxes, areas = [], [], []
    for number, thing in enumerate(scene.things, 1):
        if thing.figure is None:
            continue
        ys, xs = np.nonzero(canvas.instances == number)
        s = cam.scale(thing.z_m)
        if len(ys) < 12:
            continue
        x, y, h = (cam.width_px / 2 + thing.x_m * s, cam.ground_px(thing.z_m), thing.height_m * s)
        joints, hidden = figure.joints(thing.figure, x, y, h), figure.hidden(thing.figure)
        rows = []
        for name in COCO_KEYPOINTS:
            px, py = (float(c) for c in joints[name])
            inside = 0 <= px < cam.width_px and 0 <= py < cam.height_px
            seen = inside and name not in hidden and canvas.instances[int(py), int(px)] == number
            rows.append((px, py, 2.0 if seen else 1.0) if inside else (0.0, 0.0, 0.0))
        keypoints.append(rows)
        boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
        areas.append(len(ys))
    return Pose(
        np.array(keypoints, np.float32).reshape(-1, 17, 3),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(areas, np.float32),
    )
