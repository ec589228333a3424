"""Ray-free rendering of procedural scenes: shapes as signed distances, painted from far to near.

A pinhole camera looks along z over a ground plane; every object stands on it. Image, class, instance, part and depth
maps are painted with the same mask, so ground truth is exact. Only numpy and Pillow are used, so that worker processes
start fast.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

Array = np.ndarray
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Camera:
    """Pinhole camera. Pixels grow right and down; metres grow right (x), up (y), away (z)."""

    height_px: int
    width_px: int
    focal_px: float
    horizon_px: float
    height_m: float

    def scale(self, z_m: float) -> float:
        """Pixels per metre at depth z."""
        return self.focal_px / z_m

    def ground_px(self, z_m: float) -> float:
        """Image row where the ground is z metres away."""
        return self.horizon_px + self.scale(z_m) * self.height_m


class Canvas:
    """An unfinished image and its ground truth. `rgb`: [H, W, 3] float32 in [0, 1]. classes, instances, parts: [H, W]
    uint8. depth: [H, W] float32, metres, 0 for the sky."""

    def __init__(self, camera: Camera) -> None:
        size = (camera.height_px, camera.width_px)
        self.camera = camera
        self.rgb = np.zeros((*size, 3), np.float32)
        self.classes = np.zeros(size, np.uint8)
        self.instances = np.zeros(size, np.uint8)
        self.parts = np.zeros(size, np.uint8)
        self.depth = np.zeros(size, np.float32)
        self.n_parts = 0

    def window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[tuple[slice, slice], Array, Array] | None:
        """Slices and pixel-centre coordinates ([1, w], [h, 1]) of a box in the image, None if outside."""
        left, right = max(int(x0) - 1, 0), min(int(x1) + 2, self.camera.width_px)
        top, bottom = max(int(y0) - 1, 0), min(int(y1) + 2, self.camera.height_px)
        if right <= left or bottom <= top:
            return None
        xs = np.arange(left, right, dtype=np.float32)[None, :] + 0.5
        ys = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5
        return (slice(top, bottom), slice(left, right)), xs, ys

    def paint(
        self, where: tuple[slice, slice], distance: Array, rgb: Array, depth: Array | float, owner: tuple[int, int, int]
    ) -> None:
        """Paint one part: distance [h, w] px (inside < 0), rgb [h, w, 3], depth metres, (class, instance, part)."""
        alpha = np.clip(0.5 - distance, 0, 1)[..., None]
        patch = self.rgb[where]
        patch += alpha * (np.broadcast_to(rgb, patch.shape) - patch)
        inside = distance < 0
        for target, value in zip((self.classes, self.instances, self.parts), owner):
            target[where][inside] = value
        self.depth[where][inside] = np.broadcast_to(depth, inside.shape)[inside]

    def new_part(self) -> int:
        """The next free part number."""
        self.n_parts += 1
        return self.n_parts


def ellipse(xs: Array, ys: Array, cx: float, cy: float, rx: float, ry: float) -> Array:
    """[h, w] approximate signed distance to an ellipse."""
    rx, ry = max(rx, 0.3), max(ry, 0.3)
    r = np.hypot((xs - cx) / rx, (ys - cy) / ry)
    return (r - 1) * min(rx, ry)


def polygon(xs: Array, ys: Array, points: Array) -> Array:
    """[h, w] signed distance bound to a convex polygon, points [n, 2] in either orientation."""
    centre = points.mean(0)
    out = np.full(np.broadcast_shapes(xs.shape, ys.shape), -1e9, np.float32)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, 0)):
        nx, ny = by - ay, ax - bx
        n = max(float(np.hypot(nx, ny)), 1e-6)
        if (centre[0] - ax) * nx + (centre[1] - ay) * ny > 0:
            nx, ny = -nx, -ny
        np.maximum(out, ((xs - ax) * nx + (ys - ay) * ny) / n, out=out)
    return out


def capsule(xs: Array, ys: Array, a: Array, b: Array, ra: float, rb: float) -> tuple[Array, Array]:
    """[h, w] signed distance to a tapered limb from a to b, and the offset across it in [-1, 1] for shading."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length2 = max(float(dx * dx + dy * dy), 1e-6)
    t = np.clip(((xs - a[0]) * dx + (ys - a[1]) * dy) / length2, 0, 1)
    radius = ra + t * (rb - ra)
    ox, oy = xs - (a[0] + t * dx), ys - (a[1] + t * dy)
    return np.hypot(ox, oy) - radius, np.clip(ox / np.maximum(radius, 0.3), -1, 1)


def noise(rng: Rng, h: int, w: int, cells: int) -> Array:
    """[h, w] smooth random field in about [-1, 1]: a coarse grid, bicubically enlarged."""
    grid = rng.uniform(-1, 1, (max(2, cells * h // max(h, w)), cells)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((w, h), Image.Resampling.BICUBIC))


def texture(kind: str, u: Array, v: Array, phase: float) -> Array:
    """[h, w] modulation in [0, 1] of the second colour, over surface coordinates in stripe widths."""
    if kind == "striped":
        return (np.sin(np.pi * (u + v * np.tan(phase * 0.6) + phase)) > 0).astype(np.float32)
    if kind == "checked":
        return ((np.floor(u + phase) + np.floor(v)) % 2).astype(np.float32) * np.ones_like(u + v)
    if kind == "dotted":
        return (((u + phase) % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.09).astype(np.float32)
    return np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)


def lambert(nx: Array | float, ny: Array | float, light: Array, ambient: float) -> Array:
    """Shade of a surface with image-plane normal (nx, ny up) under a light direction [3] towards the light."""
    nz = np.sqrt(np.clip(1 - np.square(nx) - np.square(ny), 0, 1))
    return ambient + (1 - ambient) * np.clip(nx * light[0] + ny * light[1] + nz * light[2], 0, 1)


def finish(rgb: Array, rng: Rng) -> Array:
    """[3, H, W] uint8 photograph of a canvas: exposure, white balance, vignette, sensor noise."""
    h, w = rgb.shape[:2]
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, 3)
    yy, xx = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    vignette = 1 - rng.uniform(0, 0.25) * (xx**2 + yy**2) / 2
    out = np.clip(rgb * gain * vignette[..., None], 0, 1) ** rng.uniform(0.85, 1.2)
    out = out + rng.normal(0, rng.uniform(0.005, 0.03), rgb.shape)
    return np.clip(np.rint(out * 255), 0, 255).astype(np.uint8).transpose(2, 0, 1).copy()
