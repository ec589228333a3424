"""A codec's checkpoint: one safetensors file from which the codec is rebuilt without the training set.

The metadata holds the codec's name, parameters and specs, the encoder whose features it was made for, and a digest of
all contents, because safetensors silently loads a file with flipped bits. For a plug-in from outside it also holds the
plug-in's origin (`fcbench.core.registry.origin`) and, if that is a file, its path: no other plug-in may decode.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.codecs import Codec, OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, FeatureStats
from fcbench.core.files import write_atomically
from fcbench.core.python_files import read_source, reason_of
from fcbench.core.state_dicts import differences

_KEY = "fcbench_codec"
_VERSION = 2
MAX_BYTES = 1 << 32  # Of a checkpoint that is read
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Source:
    """The encoder whose features a codec was made for: as typed, and the sha256 of its weights."""

    encoder: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Contents of a checkpoint."""

    codec: Codec  # frozen, in eval mode, on the CPU
    point: OperatingPoint
    specs: tuple[FeatureSpec, ...]
    sha256: str  # of the file, hexadecimal
    source: Source


def save(path: Path, codec: nn.Module, point: OperatingPoint, specs: tuple[FeatureSpec, ...], source: Source) -> str:
    """Write a frozen codec, atomically. Returns sha256 of the file, hexadecimal. Raises `FcbenchError`: the file cannot
    be written."""
    write_atomically(path, data := as_bytes(codec, point, specs, source))
    return hashlib.sha256(data).hexdigest()


def as_bytes(codec: nn.Module, point: OperatingPoint, specs: tuple[FeatureSpec, ...], source: Source) -> bytes:
    """A frozen codec as a checkpoint file."""
    state = {k: v.detach().cpu().contiguous() for k, v in codec.state_dict().items()}
    meta: dict[str, Any] = {
        "version": _VERSION,
        "codec": point.codec,
        "params": dict(point.params),
        "specs": [asdict(s) for s in specs],
        "source": asdict(source),
    }
    if origin := registry.origin("codec", point.codec):
        meta |= {"origin": origin, "file": str(registry.file_of("codec", point.codec) or "")}
    meta["digest"] = _digest(meta, state)
    return safetensors.save(state, {_KEY: json.dumps(meta, sort_keys=True)})


def load(path: Path) -> Loaded:
    """Build the codec of a checkpoint. Raises `FcbenchError`: no such file, not a codec's checkpoint, damaged, of
    another version, or of a codec that is unknown or differs from the one that made it."""
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_BYTES):
            raise FcbenchError(f"{path} is no fcbench codec checkpoint: not a file, or larger than {MAX_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise FcbenchError(f"cannot read the codec checkpoint {path}: {error.strerror}") from None
    try:
        state = safetensors.load(data)
        n_header = int.from_bytes(data[:8], "little")
        meta = json.loads(json.loads(data[8 : 8 + n_header])["__metadata__"][_KEY])
        if (version := _field(meta, "version", int)) != _VERSION:
            raise FcbenchError(
                f"codec checkpoint {path} has version {version}, this fcbench reads {_VERSION}: update it"
            )
        digest = _field(meta, "digest", str)
        header = _header(meta)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FcbenchError(f"{path} is not an fcbench codec checkpoint, or is damaged ({_line(error)})") from None
    if digest != _digest({k: v for k, v in meta.items() if k != "digest"}, state):
        raise FcbenchError(f"codec checkpoint {path} is damaged: its contents do not match their digest")
    _require_plugin(path, header.point.codec, header.origin, header.file)
    if not header.origin:
        _require_channels(path, header.specs, state)
    codec = _build(path, header.point, header.specs, state)
    return Loaded(codec, header.point, header.specs, hashlib.sha256(data).hexdigest(), header.source)


@dataclass(frozen=True, slots=True)
class _Header:
    """The metadata, with fields of the right types."""

    point: OperatingPoint
    specs: tuple[FeatureSpec, ...]
    source: Source
    origin: dict[str, str]
    file: str


def _header(meta: Any) -> _Header:
    """Read the metadata. Raises `ValueError`: a field is missing or of another type."""
    point = OperatingPoint(_field(meta, "codec", str), _field(meta, "params", dict))
    for name, value in point.params.items():
        if type(value) not in (int, float, str) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"parameter {name!r} must be a finite number or text, got {value!r:.40}")
        if not f"{name}{value}".isprintable():
            raise ValueError(f"parameter {name!r} must be printable text, got {value!r:.40}")
    specs = tuple(map(_spec, _field(meta, "specs", list)))
    if not specs or len({s.name for s in specs}) != len(specs):
        raise ValueError("'specs' must be of one map or more, of different names")
    source = _field(meta, "source", dict)
    origin = _field({"origin": {}, **meta}, "origin", dict)
    return _Header(
        point,
        specs,
        Source(_field(source, "encoder", str), _field(source, "weights_sha256", str)),
        {name: _field(origin, name, str) for name in origin},
        _field({"file": "", **meta}, "file", str),
    )


def _spec(value: Any) -> FeatureSpec:
    layout: Any = _field(value, "layout", str)
    name, (channels, stride_px) = _field(value, "name", str), (_field(value, k, int) for k in ("channels", "stride_px"))
    if min(channels, stride_px) < 1 or layout not in ("BCHW", "BNC"):
        raise ValueError(f"a map cannot have {channels} channels, stride {stride_px} px, layout {layout!r:.40}")
    return FeatureSpec(name, channels, stride_px, layout)


def _field(holder: Any, name: str, kind: type[_T]) -> _T:
    """A field of a JSON object. Raises `ValueError`: it is missing or of another type."""
    value = holder.get(name) if isinstance(holder, dict) else None
    if type(value) is not kind:
        raise ValueError(f"{name!r} must be {kind.__name__}, got {value!r:.40}")
    if isinstance(value, str) and not value.isprintable():  # JSON may hold escape sequences, halves of surrogate pairs
        raise ValueError(f"{name!r} must be printable text, got {value!r:.40}")
    return value


def _require_plugin(path: Path, name: str, origin: Mapping[str, str], file: str) -> None:
    """Find the exact plug-in that made a checkpoint: built-in, installed, a file in use, or the file it was read from.
    Raises `FcbenchError`: it is missing, or is another file or version."""
    here = registry.origin("codec", name) if name in registry.names("codec") else {}
    if not here and os.path.isabs(file) and os.path.isfile(file):  # unlike a Path's, False for any text
        here = {Path(file).name: f"sha256:{hashlib.sha256(read_source(Path(file), 'the plug-in file')).hexdigest()}"}
        if here == origin:
            registry.use("codec", file)
    if here == origin:
        return
    expected, actual = (", ".join(f"{k} {v[:23]}" for k, v in o.items()) for o in (origin, here))
    if file:
        advice = f"give --codec FILE, the {Path(file).name} it was made with"
    elif origin:
        advice = "pip install " + " ".join(f"{k}=={v}" for k, v in origin.items())
    else:
        expected, advice = "fcbench itself", "rename the other one"
    raise FcbenchError(
        f"checkpoint {path} was made by codec {name!r} from {expected}, but here is {actual or 'none'}: {advice}"
    )


def _require_channels(path: Path, specs: tuple[FeatureSpec, ...], state: Mapping[str, Tensor]) -> None:
    """Refuse channels that the state does not have: building an absurd number would exhaust the memory. Every codec
    of this package has its training statistics in the state, ``stats.0.mean`` for the first map."""
    for i, spec in enumerate(specs):
        mean = state.get(f"stats.{i}.mean")
        n = 0 if mean is None else mean.numel()
        if n != spec.channels:
            raise FcbenchError(
                f"codec checkpoint {path} is damaged: map {spec.name!r} has {spec.channels} channels, "
                f"its statistics are of {n}"
            )


def _build(path: Path, point: OperatingPoint, specs: tuple[FeatureSpec, ...], state: Mapping[str, Tensor]) -> Codec:
    """The codec with a checkpoint's state. Its statistics come with the state, so any values will do until then."""
    codec: Any = None
    try:
        ones = {s.name: torch.ones(s.channels) for s in specs}
        stand_in = {name: FeatureStats(0 * one, one.clone(), -one, one) for name, one in ones.items()}
        codec = registry.get("codec", point.codec).build(specs, stand_in, point.params)
        codec.load_state_dict(state)
    except Exception as error:  # a codec may raise anything for foreign parameters and tensors
        different = differences(state, codec.state_dict()) if codec is not None else ""
        reason = different or reason_of(error)
        raise FcbenchError(f"codec checkpoint {path} does not fit {point.label}: {reason}") from error
    loaded: dict[str, Tensor] = codec.state_dict()
    wrong = [name for name, t in loaded.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if wrong:
        names = ", ".join(wrong[:3])
        raise FcbenchError(f"codec checkpoint {path} holds values that are not finite, in {names}: train it again")
    codec.eval()
    return cast(Codec, codec)


def _digest(meta: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name]
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
