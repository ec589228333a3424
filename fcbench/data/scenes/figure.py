"""An articulated figure with 17 keypoints in COCO order: sampled, posed, cut into limbs to draw."""

from dataclasses import dataclass

import numpy as np

ARMS = ("down", "out", "up", "bent")  # Gestures of an arm; its angles vary around these
LEGS = ("standing", "striding", "lunging")
_SKIN = ((0.95, 0.78, 0.66), (0.78, 0.56, 0.42), (0.5, 0.33, 0.23), (0.88, 0.68, 0.5))
_HAIR = ((0.12, 0.09, 0.07), (0.35, 0.2, 0.1), (0.75, 0.6, 0.3), (0.5, 0.5, 0.5))


@dataclass(frozen=True, slots=True)
class Figure:
    """A posed body; angles in radians from straight down, positive away from the body's midline."""

    facing_front: bool
    yaw: float
    lean: float
    arms: tuple[str, str]  # left, right
    legs: str
    arm_angles: tuple[tuple[float, float], tuple[float, float]]  # (upper, lower) of left, right
    leg_angles: tuple[tuple[float, float], tuple[float, float]]
    skin: int
    hair: int


@dataclass(frozen=True, slots=True)
class Limb:
    """One tapered capsule to draw, in pixels."""

    part: str
    a: np.ndarray
    b: np.ndarray
    ra: float
    rb: float
    colour: str | tuple[float, float, float]
    lift_m: float


def sample(rng: np.random.Generator) -> Figure:
    """A random pose."""
    arms = (ARMS[rng.integers(4)], ARMS[rng.integers(4)])
    legs = LEGS[rng.integers(3)]

    def arm(kind: str) -> tuple[float, float]:
        upper = {"down": 0.2, "out": 1.45, "up": 2.65, "bent": 0.75}[kind] + rng.normal(0, 0.15)
        lower = upper + (rng.uniform(1.2, 1.9) if kind == "bent" else rng.normal(0, 0.25))
        return upper, lower

    def leg(outer: bool) -> tuple[float, float]:
        spread = {"standing": 0.06, "striding": 0.35, "lunging": 0.6}[legs]
        upper = spread * (1 if outer or legs != "lunging" else 0.3) + rng.normal(0, 0.06)
        return upper, upper - (rng.uniform(0.1, 0.6) if legs == "lunging" else rng.uniform(0, 0.15))

    outer = bool(rng.integers(2))
    return Figure(
        facing_front=bool(rng.random() < 0.7),
        yaw=float(rng.uniform(-0.8, 0.8)),
        lean=float(rng.normal(0, 0.1)),
        arms=arms,
        legs=legs,
        arm_angles=(arm(arms[0]), arm(arms[1])),
        leg_angles=(leg(outer), leg(not outer)),
        skin=int(rng.integers(len(_SKIN))),
        hair=int(rng.integers(len(_HAIR))),
    )


def joints(figure: Figure, x_px: float, y_px: float, height_px: float) -> dict[str, np.ndarray]:
    """Keypoints by name, each [2] (x, y) px, of a figure whose feet stand at (x, y)."""
    h = height_px
    side = {"left": 1.0, "right": -1.0}  # the figure's left is to the right of the image when it faces us
    mirror = 1.0 if figure.facing_front else -1.0
    turn, width = np.sin(figure.yaw) * mirror, np.cos(figure.yaw)
    legs_h = 0.0
    out: dict[str, np.ndarray] = {}
    drops = []
    for upper, lower in figure.leg_angles:
        drops.append(0.25 * np.cos(upper) + 0.24 * np.cos(lower))
    legs_h = max(drops) * h
    hip = np.array((x_px, y_px - legs_h - 0.02 * h))
    up = np.array((np.sin(figure.lean), -np.cos(figure.lean)))
    neck = hip + up * 0.31 * h
    head = neck + up * 0.105 * h + np.array((0.02 * h * turn, 0))
    for i, name in enumerate(("left", "right")):
        s = side[name] * mirror
        shoulder = neck + up * -0.02 * h + np.array((s * 0.115 * h * width, 0))
        hip_joint = hip + np.array((s * 0.06 * h * width, 0))
        out[f"{name}_shoulder"], out[f"{name}_hip"] = shoulder, hip_joint
        upper, lower = figure.arm_angles[i]
        elbow = shoulder + 0.17 * h * np.array((s * np.sin(upper), np.cos(upper)))
        out[f"{name}_elbow"] = elbow
        out[f"{name}_wrist"] = elbow + 0.16 * h * np.array((s * np.sin(lower), np.cos(lower)))
        upper, lower = figure.leg_angles[i]
        knee = hip_joint + 0.25 * h * np.array((s * np.sin(upper), np.cos(upper)))
        out[f"{name}_knee"] = knee
        out[f"{name}_ankle"] = knee + 0.24 * h * np.array((s * np.sin(lower), np.cos(lower)))
        out[f"{name}_eye"] = head + np.array((s * 0.025 * h * width + 0.03 * h * turn, -0.015 * h))
        out[f"{name}_ear"] = head + np.array((s * 0.055 * h * width - 0.01 * h * turn, 0.0))
    out["nose"] = head + np.array((0.045 * h * turn, 0.01 * h))
    out["head"], out["neck"], out["hip"] = head, neck, hip
    return out


def hidden(figure: Figure) -> set[str]:
    """Keypoints hidden by the figure itself: the face from behind, the far ear."""
    face = set() if figure.facing_front else {"nose", "left_eye", "right_eye"}
    if abs(figure.yaw) > 0.35:
        face.add("left_ear" if figure.yaw > 0 else "right_ear")
    return face


def limbs(figure: Figure, x_px: float, y_px: float, height_px: float) -> list[Limb]:
    """The figure's limbs in the order in which they are painted."""
    j, h = joints(figure, x_px, y_px, height_px), height_px
    skin, hair = _SKIN[figure.skin], _HAIR[figure.hair]
    far, near = ("right", "left") if np.sin(figure.yaw) < 0 else ("left", "right")
    out: list[Limb] = []

    def add(part: str, a: np.ndarray, b: np.ndarray, ra: float, rb: float, colour: str | tuple, lift: float) -> None:
        out.append(Limb(part, a, b, ra * h, rb * h, colour, lift))

    def arm(side: str, lift: float) -> None:
        add(f"{side}_arm", j[f"{side}_shoulder"], j[f"{side}_elbow"], 0.038, 0.032, "shirt", lift)
        add(f"{side}_arm", j[f"{side}_elbow"], j[f"{side}_wrist"], 0.03, 0.024, skin, lift)

    for side in (far, near):
        add(f"{side}_leg", j[f"{side}_hip"], j[f"{side}_knee"], 0.055, 0.042, "trousers", 0.0)
        add(f"{side}_leg", j[f"{side}_knee"], j[f"{side}_ankle"], 0.042, 0.03, "trousers", 0.0)
        add(
            f"{side}_leg", j[f"{side}_ankle"], j[f"{side}_ankle"] + [0, 0.012 * h], 0.034, 0.034, (0.15, 0.12, 0.1), 0.0
        )
    arm(far, -0.05)
    width = 0.075 + 0.03 * np.cos(figure.yaw)
    add("torso", j["hip"], j["neck"] + [0, 0.05 * h], width * 0.85, width, "shirt", 0.1)
    add("head", j["neck"], j["head"], 0.035, 0.035, skin, 0.1)
    add("head", j["head"], j["head"], 0.068, 0.068, skin if figure.facing_front else hair, 0.12)
    crown = j["head"] - [0, 0.03 * h]
    add("head", crown + [-0.03 * h, 0], crown + [0.03 * h, 0], 0.042, 0.042, hair, 0.12)
    if figure.facing_front:
        for eye in ("left_eye", "right_eye"):
            add("head", j[eye], j[eye], 0.011, 0.011, (0.05, 0.05, 0.1), 0.13)
        add("head", j["nose"], j["nose"] + [0, 0.012 * h], 0.009, 0.011, tuple(0.8 * c for c in skin), 0.14)
    arm(near, 0.12)
    return out
