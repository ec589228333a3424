"""How much better could the HEVC anchors be? Layouts, orders, presets, tools, depths, at equal error of the features.

    python -m benchmarks.anchors --encoder hiera_nano --encoder sam2_nano --out results/anchors
    python -m benchmarks.anchors --encoder hiera_nano --split-point trunk --samples 8 --out results/anchors/trunk

Normalized channels, or their principal components, of test samples go through libx265 in other ways than the codecs
``hevc`` and ``hevc_klt`` do; each row is one change, with its BD-rate in squared error against the same without it.
Parameter sets that all streams share do not count, as in the codecs. Channel order and components come from the
training split.

With several split points, the mosaic codecs are compared instead: a picture per map, the same with a
range of levels for each, and all maps in one picture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import av
import click
import numpy as np
import pandas as pd
import torch

import fcbench
from fcbench.analysis.curves import bd_rate, curve
from fcbench.cli.options import cache_option
from fcbench.codecs.shared.base import CLIP_STD
from fcbench.codecs.shared.mosaic import Levels, MosaicCodec, tile, untile
from fcbench.codecs.shared.transforms import klt
from fcbench.coders.video import PRESET_X265, X265, decode_packets, encode_frames
from fcbench.core import registry
from fcbench.core.codecs import Codec, Knobs
from fcbench.core.features import Features, FeatureStats
from fcbench.core.files import write_atomically
from fcbench.core.progress import Report
from fcbench.features.source import Source
from fcbench.measure.study import device_of, open_study

QPS = (40, 36, 32, 28, 24, 20)
LEAST_PX = 16
"""Smallest picture of libx265."""
N_TRAIN = 256
FORMATS = {8: "gray", 10: "gray10le", 12: "gray12le"}


@dataclass(frozen=True, slots=True)
class Way:
    """A way through libx265.

    Attributes:
        components: principal components instead of channels.
        layout: a sample's maps tiled into one picture; or one after the other as the frames of a video (small maps in
            squares of the smallest picture); or the tiled pictures of all samples as one video.
        similar: channels in an order in which neighbours are correlated, instead of the encoder's.
        options: of libx265, after the codec's own.
        spread: range of the levels, as a share of the codec's.
    """

    name: str
    components: bool = False
    layout: str = "mosaic"
    similar: bool = False
    bits: int = 10
    preset: str = PRESET_X265
    tune: str = ""
    options: str = ""
    spread: float = 1.0


CHANGES = (
    Way("channels by similarity", similar=True),
    Way("video of channels", layout="video"),
    Way("video of channels by similarity", layout="video", similar=True),
    Way("one file of all samples", layout="samples"),
    Way("preset veryslow", preset="veryslow"),
    Way("preset placebo", preset="placebo"),
    Way("transform skip", options="tskip=1"),
    Way("no deblocking, no SAO", options="no-deblock=1:no-sao=1"),
    Way("tune grain", tune="grain"),
    Way("coding tree units of 16", options="ctu=16"),
    Way("8 bits", bits=8),
    Way("12 bits", bits=12),
    Way("half of the range", spread=0.5),
    Way("twice the range", spread=2.0),
)
"""One change each to `Way` as it is."""
MOSAICS = ("hevc", "hevc_klt", "jpeg", "av1")
"""Codecs that are tried with all maps in one picture."""


# ------------------------------------------------------------------------------------------------ coding
def write(pictures: Sequence[np.ndarray], qp: int, way: Way) -> bytes:
    """An Annex B stream of pictures [H, W]; all but the first are predicted from those before."""
    options = X265.format(qp=qp, info=0)
    if len(pictures) > 1:
        options = f"{options}:keyint=-1:scenecut=0".replace("keyint=1:", "", 1)
    options = f"{options}:{way.options}" if way.options else options
    given = {"preset": way.preset, "x265-params": options} | ({"tune": way.tune} if way.tune else {})
    return encode_frames("libx265", FORMATS[way.bits], [[p] for p in pictures], given)


def read(data: bytes, way: Way) -> list[np.ndarray]:
    """Inverse of `write`."""
    parser = av.CodecContext.create("hevc", "r")
    packets = [*parser.parse(data), *parser.parse(None)]
    return [planes[0] for planes in decode_packets("hevc", FORMATS[way.bits], packets)]


def block(maps: np.ndarray) -> list[np.ndarray]:
    """Maps [C, h, w] as pictures of at least `LEAST_PX`: squares of g x g maps, the last one filled up."""
    channels, h, w = maps.shape
    g = -(-LEAST_PX // min(h, w))
    full = np.concatenate([maps, np.repeat(maps[-1:], -channels % (g * g), axis=0)])
    grid = full.reshape(-1, g, g, h, w).transpose(0, 1, 3, 2, 4).reshape(-1, g * h, g * w)
    return list(np.pad(grid, ((0, 0), (0, -(g * h) % 8), (0, -(g * w) % 8)), mode="edge"))


def unblock(pictures: Sequence[np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    """Inverse of `block`."""
    channels, h, w = shape
    g = -(-LEAST_PX // min(h, w))
    grid = np.stack(pictures)[:, : g * h, : g * w].reshape(-1, g, h, g, w).transpose(0, 1, 3, 2, 4)
    return grid.reshape(-1, h, w)[:channels]


def code(samples: np.ndarray, limit: float, order: Sequence[int], qp: int, way: Way) -> tuple[float, float]:
    """Bytes per sample and squared error of samples [N, C, h, w], clipped to +- `limit`."""
    limit *= way.spread
    step = 2 * limit / ((1 << way.bits) - 1)
    levels = np.rint((np.clip(samples, -limit, limit) + limit) / step).astype(np.uint8 if way.bits == 8 else np.uint16)
    ordered, shape = levels[:, order], levels.shape[1:]
    if way.layout == "video":
        groups = [block(maps) for maps in ordered]
    else:
        pictures = [tile([maps], round(limit / step), LEAST_PX, 8) for maps in ordered]
        groups = [pictures] if way.layout == "samples" else [[p] for p in pictures]
    streams = [write(group, qp, way) for group in groups]
    decoded = [read(data, way) for data in streams]
    if way.layout == "video":
        maps = [unblock(frames, shape) for frames in decoded]
    else:
        maps = [untile(frame, [shape])[0] for frames in decoded for frame in frames]
    restored = np.empty_like(levels)
    restored[:, order] = np.stack(maps)
    n_shared = len(os.path.commonprefix(streams[:2])) if len(streams) > 1 else 0
    n_bytes = sum(len(data) - n_shared for data in streams) / len(samples)
    return n_bytes, float(np.square(restored * step - limit - samples).mean())


# ---------------------------------------------------------------------------------------------- features
@dataclass(frozen=True, slots=True)
class Values:
    """Test samples [N, C, h, w] as channels or components, the limit of their levels, and the order by similarity."""

    samples: np.ndarray
    limit: float
    similar: list[int]


def by_similarity(correlation: np.ndarray) -> list[int]:
    """A chain of channels [C, C]: from the most correlated one, each time to the most similar of the rest."""
    order = [int(np.abs(correlation).sum(0).argmax())]
    left = set(range(len(correlation))) - set(order)
    while left:
        order.append(max(left, key=lambda c: correlation[order[-1], c]))
        left.remove(order[-1])
    return order


def values_of(source: Source, n_test: int) -> dict[bool, Values]:
    """Normalized channels (False) and principal components (True) of the first map."""
    name = source.split_points[0]
    train, test = (s.features.batch(range(n))[name] for s, n in ((source.train, N_TRAIN), (source.test, n_test)))
    mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True)
    train, test = (train - mean) / std, (test - mean) / std
    rows = klt(train)[0].float()
    found = {}
    for components in (False, True):
        known, own = (torch.einsum("dc,bchw->bdhw", rows, x) if components else x for x in (train, test))
        limit = CLIP_STD * float(known.square().mean((0, 2, 3)).sqrt().max())
        flat = known.transpose(0, 1).flatten(1)
        found[components] = Values(own.numpy(), limit, by_similarity(torch.corrcoef(flat).numpy()))
    return found


def measure(encoder: str, source: Source, n_test: int, say: Callable[[str], None]) -> list[dict[str, object]]:
    """One record per way: bytes and errors at each QP, and the BD-rate against the codec's own way."""
    records = []
    for components, values in values_of(source, n_test).items():
        base = None
        for change in (Way("as the codec does"), *CHANGES):
            way = replace(change, components=components)
            order = values.similar if way.similar else list(range(values.samples.shape[1]))
            coded = [code(values.samples, values.limit, order, qp, way) for qp in QPS]
            n_bytes, errors = zip(*coded, strict=True)
            found = curve(n_bytes, [-10 * np.log10(e) for e in errors])
            base = base or found
            gain = bd_rate(base, found)
            record: dict[str, object] = {
                "encoder": encoder,
                "codec": "hevc_klt" if components else "hevc",
                "change": way.name,
            }
            record |= {"bd_rate_percent": gain.value, "reason": gain.reason}
            record |= {f"bytes_qp{qp}": b for qp, b in zip(QPS, n_bytes)}
            record |= {f"mse_qp{qp}": e for qp, e in zip(QPS, errors)}
            records.append(record)
            said = f"{gain.value:+.1f} %" if gain.value is not None else gain.reason
            say(f"{encoder}, {record['codec']}: {way.name}: {said}")
    return records


def own_levels(codec: MosaicCodec, picture: Sequence[int]) -> Any:
    """The levels of a picture of a pyramid without regard to the other maps."""
    return Levels(codec.limits(picture), codec.bits, torch.zeros(2))


LAYOUTS: tuple[tuple[str, Knobs, Callable[[MosaicCodec, Sequence[int]], Any]], ...] = (
    ("one per map", {}, MosaicCodec.levels),
    ("one per map, a range each", {}, own_levels),
    ("one", {"pictures": "one"}, MosaicCodec.levels),
)
"""Layouts of a pyramid: name, parameters, and the levels of a picture."""


def measure_pictures(encoder: str, source: Source, n_test: int, say: Callable[[str], None]) -> list[dict[str, object]]:
    """One record per codec and layout; errors in deviations, over all scalars."""
    train, test = (s.features.batch(range(n)) for s, n in ((source.train, N_TRAIN), (source.test, n_test)))
    specs = tuple(source.encoder.specs[name] for name in source.split_points)
    records = []
    for name in MOSAICS:
        plugin, base = registry.get("codec", name), None
        for layout, more, levels in LAYOUTS:
            points = []
            with mock.patch.object(MosaicCodec, "levels", levels):
                for params in plugin.sweep("mse"):
                    codec = plugin.build(specs, source.stats, {**params, **more})
                    codec.prepare([train[spec.name] for spec in specs])
                    points.append(_coded(codec, test, source.stats))
            n_bytes, errors = zip(*points, strict=True)
            found = curve(n_bytes, [-10 * np.log10(e) for e in errors])
            base = base or found
            gain = bd_rate(base, found)
            record: dict[str, object] = {"encoder": encoder, "split": source.split_point, "codec": name}
            record |= {"pictures": layout, "bd_rate_percent": gain.value}
            record |= {"reason": gain.reason} | {f"bytes_{i + 1}": b for i, b in enumerate(n_bytes)}
            records.append(record | {f"mse_{i + 1}": e for i, e in enumerate(errors)})
            said = f"{gain.value:+.1f} %" if gain.value is not None else gain.reason
            say(f"{encoder}, {name}: pictures: {layout}: {said}")
    return records


def _coded(codec: Codec, maps: Mapping[str, torch.Tensor], stats: Mapping[str, FeatureStats]) -> tuple[float, float]:
    """Bytes per sample and squared error in training deviations of maps [N, C, h, w], over all scalars."""
    n_bytes, squares, n_scalars, n = 0, 0.0, 0, len(next(iter(maps.values())))
    for i in range(n):
        sent = Features({name: x[i : i + 1] for name, x in maps.items()})
        payload = codec.encode(sent).payload
        arrived = codec.decode(payload, sent.shapes).features.maps
        n_bytes, n_scalars = n_bytes + len(payload), n_scalars + sent.n_scalars
        for name, x in sent.maps.items():
            squares += float(((arrived[name] - x) / stats[name].std[:, None, None]).square().sum())
    return n_bytes / n, squares / n_scalars


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--encoder", "encoders", multiple=True, default=["hiera_nano"], help="Repeatable. [hiera_nano]")
@click.option("--dataset", default="scenes", show_default=True)
@click.option("--data-root", type=click.Path(path_type=Path), default=None, help="Of a data set on disk.")
@click.option("--split-point", default=None, help="One or a group. [the encoder's default]")
@click.option("--samples", default=32, show_default=True, help="Test samples to code.")
@cache_option
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder for anchors.csv.")
def main(
    encoders: tuple[str, ...],
    dataset: str,
    data_root: Path | None,
    split_point: str | None,
    samples: int,
    cache_dir: Path,
    out: Path | None,
) -> None:
    """Measure changes to the HEVC anchors."""
    torch.set_num_threads(1)
    av.logging.set_level(av.logging.PANIC)
    records = []
    for encoder in encoders:
        task = registry.get("dataset", dataset).tasks[0]
        suite = fcbench.Suite(encoders=(encoder,), dataset=dataset, data_root=data_root, tasks=(task,))
        suite = replace(suite, n_train=N_TRAIN, n_test=samples, split_point=split_point)
        study = open_study(suite, cache_dir, device_of("cpu"))
        source = study.source(study.encoder(encoder), Report(0))
        way = measure if len(source.split_points) == 1 else measure_pictures
        records += way(encoder, source, samples, click.echo)
    if out:
        text = pd.DataFrame(records).to_csv(index=False, lineterminator="\n")
        write_atomically(out / "anchors.csv", text)


if __name__ == "__main__":
    main()
