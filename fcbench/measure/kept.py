"""Streams and checkpoints that a run kept: read and decoded again, and compared with its rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from fcbench.core import registry
from fcbench.core.cache import Cache, digest, get
from fcbench.core.codecs import EstimatingCodec, Kind, codec_kind
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, FeatureStats
from fcbench.core.files import sha256_of
from fcbench.core.progress import Advance
from fcbench.core.rates import CONTAINER, HEADERS, bpp_estimated
from fcbench.features.feature_set import FeatureSet
from fcbench.features.source import kept_stats
from fcbench.features.statistics import normalized_mse
from fcbench.features.store import dtype_of, open_set
from fcbench.measure.run import STREAMS
from fcbench.results import table
from fcbench.results.checks import Checks, grouped, parts_of, sending
from fcbench.results.row import OK, RatePoint
from fcbench.results.samples import has_samples, load_samples
from fcbench.transmit.checkpoint import Loaded, load
from fcbench.transmit.coders import HERE, Coders
from fcbench.transmit.container import ContainerReader, Header
from fcbench.transmit.images import apart, within_limits
from fcbench.transmit.senders import decode_images, decode_labels, verified

SAME = 1e-4  # Relative difference between two machines, whose networks round differently
Uncoded = tuple[FeatureSet, Mapping[str, FeatureStats]]  # Test features, and the statistics of the training features


def check(folder: Path, cache: Cache, checks: Checks, advance: Advance, trust: bool = False) -> None:
    """Check every stream of a folder. `cache`: of the features, and of checkpoints that are not beside their streams.
    `advance`: called with (streams done, total streams). `trust`: see `fcbench.transmit.images.decode`."""
    sent = [r for r in table.load_points(folder) if r.kind in (Kind.CODED, Kind.REMOTE, Kind.LABEL)]
    rows = {_stem(row): row for row in reversed(sent)}
    streams = {file.stem: file for file in sorted((folder / STREAMS).glob("*.fcb"))}
    for file in sorted((folder / STREAMS).glob("*")):
        if file.stem not in rows or file.stem not in streams:
            no_row = "belongs to no row: it was deleted, or its run was killed"
            what = "its stream is missing" if file.stem in rows else no_row
            checks.fault(what, f"{STREAMS}/{file.name}", rows.get(file.stem))
    for number, together in enumerate(groups := grouped(rows.values(), sending)):
        advance(number, len(groups))
        measured = [row for row in together if row.status == OK]
        with_stream = [row for row in together if _stem(row) in streams]
        if measured and not with_stream:
            checks.left["streams (not kept)"] += 1
        for row in with_stream if measured else ():
            of = row if row.status == OK else measured[0]
            stream = _Stream(folder, streams[_stem(row)], of, cache, checks, trust)
            try:
                stream.check()
            except (FcbenchError, ValueError) as error:
                stream.fault(str(error))


def _stem(row: RatePoint) -> str:
    """Name of a point's stream, if its task is the first of those that read it."""
    return digest({"job": row.point})


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream, with a row of a task that read it."""

    folder: Path
    file: Path
    row: RatePoint
    cache: Cache
    checks: Checks
    trust: bool

    def fault(self, what: str, file: Path | None = None) -> None:
        self.checks.fault(what, (file or self.file).relative_to(self.folder).as_posix(), self.row)

    def check(self) -> None:
        """Raises `FcbenchError`: the stream or its checkpoint cannot be read."""
        reader, left = ContainerReader(self.file), self.checks.left
        self._sizes(reader)
        self.checks.done["streams"] += 1
        if self.row.kind == Kind.REMOTE:
            self._images(reader)
        elif self.row.kind == Kind.LABEL:
            self._labels(reader)
        elif (checkpoint := self._checkpoint()) is None:
            left[f"streams not decoded (checkpoints are neither kept nor in {self.cache.root})"] += 1
        else:
            self._features(reader, checkpoint)

    def _compare(self, what: str, here: Any, claimed: Any) -> None:
        if here != claimed:
            values = f": {here} here, {claimed} there" if len(f"{here}{claimed}") < 200 else ""
            self.fault(f"{what} of its row are others{values}")

    def _sizes(self, reader: ContainerReader) -> None:
        """Read all records; compare their sizes."""
        row, header = self.row, reader.header
        sizes, n_scalars = list[int](), 0
        for record in reader:
            sizes.append(len(record.payload))
            n_scalars += sum(s.channels * record.shapes[s.name][0] * record.shapes[s.name][1] for s in header.specs)
        prefix = (row.checkpoint_sha256 or "0" * 64)[: len(header.checkpoint_sha256)]
        self._compare("codec and checkpoint", f"{header.codec} {header.checkpoint_sha256}", f"{row.codec} {prefix}")
        self._compare("bytes", reader.n_bytes, row.n_bytes)
        self._compare("samples", len(reader), row.n_samples)
        if row.kind == Kind.CODED:
            self._compare("feature scalars", n_scalars, row.n_points)
        if has_samples(self.folder, row.point):
            self._compare("sizes of samples", sizes, list(load_samples(self.folder, row.point).n_bytes))
        if row.parts:
            self._compare("bytes of the container", reader.n_bytes - sum(sizes), parts_of(row).get(CONTAINER))

    def _checkpoint(self) -> Path | None:
        """The checkpoint beside the stream, or in the cache; None if it is in neither."""
        row, beside = self.row, self.file.with_suffix(".safetensors")
        if beside.is_file():
            if sha256_of(beside) != row.checkpoint_sha256:
                self.fault("not the checkpoint of its row", beside)
            return beside
        cached = self.cache.models.glob("codec-*.safetensors")
        likely = (file for file in cached if file.stat().st_size == row.checkpoint_bytes)
        return next((file for file in likely if sha256_of(file) == row.checkpoint_sha256), None)

    def _images(self, reader: ContainerReader) -> None:
        """Decode all images; compare their sizes and parts."""
        name = codec_kind(self.row.codec)[1]
        if not self._known("image", name):
            return
        plugin, sizes, parts = registry.get("image", name), set[str](), Counter[str]()
        with self._coders(reader) as coders:
            for record, (image, _) in zip(reader, decode_images(reader, name, coders)):
                sizes.add("x".join(map(str, image.shape[1:])))
                n = plugin.header_bytes(record.payload)
                parts.update({HEADERS: n, "image": len(record.payload) - n})
        self.checks.done["streams decoded"] += 1
        self._compare("sizes of images", ", ".join(sorted(sizes)), self.row.image_size)
        if self.row.parts:
            self._compare("parts", {**parts, CONTAINER: reader.n_bytes - sum(parts.values())}, parts_of(self.row))
        self.checks.left["feature errors (of images: no encoder runs here)"] += 1

    def _labels(self, reader: ContainerReader) -> None:
        """Decode all labels."""
        if self._known("label", self.row.task):
            with self._coders(reader) as coders:
                for _ in decode_labels(reader, self.row.task, coders):
                    pass
            self.checks.done["streams decoded"] += 1

    def _known(self, kind: str, name: str) -> bool:
        if name in registry.names(kind):
            return True
        self.checks.left[f"streams not decoded (no plug-in {kind} {name!r} here)"] += 1
        return False

    def _coders(self, reader: ContainerReader) -> Coders:
        return HERE if self.trust else within_limits(reader)

    def _features(self, reader: ContainerReader, checkpoint: Path) -> None:
        """Decode all samples; compare what was lost."""
        row, loaded, checks = self.row, load(checkpoint), self.checks
        reader.verify_checkpoint(loaded.sha256)
        reader.verify_header(Header(loaded.point.codec, loaded.sha256, loaded.specs), checkpoint)
        made_for = f"{loaded.source.encoder} {loaded.source.weights_sha256}"
        self._compare("parameters of the codec", dict(loaded.point.params), json.loads(row.params))
        self._compare("encoder and its weights", made_for, f"{row.encoder} {row.weights_sha256}")
        self._compare("bytes of the checkpoint", checkpoint.stat().st_size, row.checkpoint_bytes)
        uncoded = _uncoded(row, loaded.specs, self.cache) if len(reader) == row.n_samples else None
        mse, bits, parts = _decoded(reader, checkpoint, loaded, uncoded, self.trust)
        checks.done["streams decoded"] += 1
        if parts and row.parts:
            self._compare("parts", {**parts, CONTAINER: reader.n_bytes - sum(parts.values())}, parts_of(row))
        if uncoded is None:
            checks.left[f"feature errors (features are not in {self.cache.root})"] += 1
            return
        gives = f"{self.file.relative_to(self.folder).as_posix()} and the cached features give"
        checks.compare(row, "n_px", uncoded[0].n_px, gives)
        checks.compare(row, "feature_mse", mse, gives, SAME)
        if bits is not None:
            checks.compare(row, "bpp_estimated", bpp_estimated(bits, row.n_px), gives, SAME)
        checks.done["feature errors"] += 1


def _decoded(
    reader: ContainerReader, checkpoint: Path, loaded: Loaded, uncoded: Uncoded | None, trust: bool
) -> tuple[float, float | None, dict[str, int]]:
    """Error of decoded features, estimated bits, and bytes by part. Without uncoded features, error and bits are 0 and
    None; where the codec tells no parts, there are none. Raises `FcbenchError`: the stream cannot be decoded, or not to
    the integers that were coded."""
    error, bits, parts, codec = 0.0, 0.0, Counter[str](), loaded.codec
    with torch.inference_mode(), HERE if trust else apart(loaded, reader) as coders:
        for i, (record, (found, _)) in enumerate(coders.decode(checkpoint, loaded, reader)):
            decoded = verified(record, found, checkpoint).features.maps
            parts.update({name: len(data) for name, data in found.parts.items()})
            if uncoded is not None:
                if record.shapes != dict(uncoded[0].grids):
                    raise FcbenchError(f"{record.where}: its maps are not of the size of the cached features")
                maps = uncoded[0].batch([i])
                error += float(normalized_mse(maps, decoded, uncoded[1])) / len(reader)
                bits += float(codec.estimate_bits(maps).sum()) if isinstance(codec, EstimatingCodec) else 0
    return error, bits if uncoded and isinstance(codec, EstimatingCodec) else None, dict(parts)


def _uncoded(row: RatePoint, specs: tuple[FeatureSpec, ...], cache: Cache) -> Uncoded | None:
    """The features behind a row, from the cache; None if it does not hold them."""
    splits: dict[str, list[tuple[Path, Any]]] = {"train": [], "test": []}
    for index in cache.features.glob(f"*/{0:08d}/index.json"):
        if (found := get(index)) is None:
            continue
        key = json.loads(found)["key"]
        made_by = key["encoder"], key["weights_sha256"], dtype_of(key), {s["name"] for s in key["specs"]}
        if made_by == (row.encoder, row.weights_sha256, row.features_dtype or "float32", {s.name for s in specs}):
            splits[key["split"]].append((index.parents[1], key))
    for train, test in product(splits["train"], splits["test"]):
        revision = "/".join(dict.fromkeys(key["revision"] for _, key in (train, test)))
        if revision != row.dataset_revision or train[1]["code"] != test[1]["code"]:
            continue
        trained, tested = open_set(*train), open_set(*test)
        if trained is None or tested is None or len(tested) != row.n_samples or row.n_train not in (None, len(trained)):
            continue
        if row.image_size in ("", "x".join(map(str, tested.image_px))):
            return tested, kept_stats(trained, cache)
    return None
