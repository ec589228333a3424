"""Rules for plain data: a dataclass's annotations, applied to its values.

    @named
    @dataclass(frozen=True)
    class Plan:
        steps: Annotated[int, within(1, 1000)] = 400
        names: tuple[str, ...] = ("a",)

        def __post_init__(self) -> None:
            obey(self)

Whatever the annotation, no number is NaN or infinite, no text is empty or holds control characters, and a sequence has
at least one value and none twice; a mapping may be empty.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fcbench.core.errors import FcbenchError, nearest, unknown

T = TypeVar("T")

_LEAVES = {int: "a whole number", float: "a finite number", str: "text", bool: "True or False", Path: "a path"}
"""Type -> what is expected."""
_SHOWN = 60  # Characters of a value that a message repeats


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on a value beyond its type, and its description."""

    words: str
    holds: Callable[[Any], bool]


def within(low: float, high: float) -> Rule:
    """From low to high, inclusive."""
    return Rule(f"from {low} to {high}", lambda value: low <= value <= high)


MAX_IMAGE_PX = 1 << 26  # Largest number of pixels of an image
Positive = Annotated[int, within(1, 10**7)]  # A number of samples or steps
ImageSize = Annotated[
    tuple[Annotated[int, within(1, MAX_IMAGE_PX)], Annotated[int, within(1, MAX_IMAGE_PX)]],
    Rule(
        f"height and width of at most {MAX_IMAGE_PX} pixels in all (more do not fit in memory)",
        lambda px: px[0] * px[1] <= MAX_IMAGE_PX,
    ),
]
"""(H, W) in pixels."""


def obey(data: Any) -> None:
    """Check each field of a dataclass; called at the end of its ``__init__``, frozen or not.

    A field of several values also accepts a list or a single value, and a path its text. Raises `FcbenchError`: names
    the first field whose value breaks its annotation.
    """
    for field in fields(data):
        value = getattr(data, field.name)
        object.__setattr__(data, field.name, read(field.name, _hints(data.__class__)[field.name], value))


def named(kind: type[T]) -> type[T]:
    """Make a dataclass refuse unknown field names with `FcbenchError`; the message holds the nearest name."""
    known, init = [f.name for f in fields(kind)], kind.__init__  # type: ignore[arg-type]

    @wraps(init)
    def checked(self: Any, *args: Any, **given: Any) -> None:
        for name in given:
            if name not in known:
                raise FcbenchError(unknown(f"field of {kind.__name__}", name, known))
        init(self, *args, **given)

    setattr(kind, "__init__", checked)
    return kind


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def read(where: str, hint: Any, value: Any) -> Any:
    """A value converted to its annotation. `where`: name of the value in messages. Raises `FcbenchError`: it has
    another type, or breaks a rule.

    >>> read("sizes", tuple[int, ...], [3, 4]), read("sizes", tuple[int, ...], 5)
    ((3, 4), (5,))
    >>> read("seed", Annotated[int, within(0, 9)], -1)
    Traceback (most recent call last):
    ...
    fcbench.core.errors.FcbenchError: seed must be a whole number from 0 to 9, got -1
    """
    kind, args = get_origin(hint), get_args(hint)
    if kind is Annotated:
        leaf = get_origin(args[0]) is None
        checked = _leaf(args[0], value) if leaf else read(where, args[0], value)
        if checked is None or not args[1].holds(checked):
            raise _refused(where, hint, value)
        return checked
    if kind in (Union, UnionType):
        return _one_of(where, hint, value)
    if kind is tuple and args[-1] is Ellipsis:
        return _several(where, args[0], value)
    if kind is tuple:
        if not isinstance(value, (tuple, list)) or len(value) != len(args):
            raise _refused(where, hint, value)
        return tuple(read(where, each, v) for each, v in zip(args, value))
    if kind is Mapping:
        if not isinstance(value, Mapping):
            raise _refused(where, hint, value)
        return {read(where, args[0], k): read(f"{where}[{shown(k)}]", args[1], v) for k, v in value.items()}
    if kind is Literal:
        checked = value if isinstance(value, str) and value in args else None
    else:
        checked = _leaf(hint, value)
    if checked is None:
        raise _refused(where, hint, value)
    return checked


def _leaf(kind: Any, value: Any) -> Any:
    """A value of a plain type; None if it has another type."""
    if kind in (int, float) and isinstance(value, Real) and not isinstance(value, bool):
        if isinstance(value, Integral):
            return int(value)
        return float(value) if kind is float and math.isfinite(value) else None
    if kind is str and isinstance(value, str):
        return value if value and not any(ord(c) < 32 or ord(c) == 127 for c in value) else None
    if kind is Path and isinstance(value, (str, Path)):
        return None if "\0" in str(value) else Path(value)
    return value if kind not in (int, float, str) and isinstance(value, kind) else None


def _one_of(where: str, hint: Any, value: Any) -> Any:
    options = [a for a in get_args(hint) if a is not NoneType]
    if value is None and len(options) < len(get_args(hint)):
        return None
    if len(options) == 1:
        return read(where, options[0], value)
    for option in options:
        with suppress(FcbenchError):
            return read(where, option, value)
    raise _refused(where, hint, value)


def _several(where: str, hint: Any, value: Any) -> tuple[Any, ...]:
    values = value if isinstance(value, (tuple, list, range)) else (value,)
    if not values:
        raise FcbenchError(f"{where} must hold at least one value, got none")
    checked = tuple(read(where, hint, v) for v in values)
    for i, one in enumerate(checked):
        if one in checked[:i]:
            raise FcbenchError(f"{where}: {shown(one)} is named twice")
    return checked


def _refused(where: str, hint: Any, value: Any) -> FcbenchError:
    near = nearest(str(value), get_args(hint)) if get_origin(hint) is Literal else ""
    return FcbenchError(f"{where} must be {_expected(hint)}, got {shown(value)}{near}")


def _expected(hint: Any) -> str:
    kind, args = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return args[1].words if get_origin(args[0]) is tuple else f"{_expected(args[0])} {args[1].words}"
    if kind in (Union, UnionType):
        return " or ".join(_expected(a) for a in args if a is not NoneType and not (a is int and float in args))
    if kind is tuple:
        return _expected(args[0]) if args[-1] is Ellipsis else f"{len(args)} values, each {_expected(args[0])}"
    if kind is Mapping:
        return f"a dictionary, {_expected(args[0])}: {_expected(args[1])}"
    if kind is Literal:
        return " or ".join(map(repr, args))
    return _LEAVES.get(hint) or f"a {hint.__name__}"


def shown(value: Any) -> str:
    """A value for a message: short, on one line.

    >>> shown("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    try:
        text = repr(value)
    except Exception:  # a foreign __repr__ may raise anything; so do integers of over 4300 digits
        return f"an object of type {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN - 3]}..."
