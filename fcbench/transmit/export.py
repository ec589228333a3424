"""A trained codec as ``torch.export`` programs, for use without fcbench's classes: checked after writing."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fcbench import __version__
from fcbench.core.codecs import ExportableCodec, Grids
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features
from fcbench.core.files import disk_errors, write_atomically
from fcbench.transmit import checkpoint

MANIFEST = "codec.json"
_N_CHECKED = 3
_HINT = "choose another -o"


def export(path: Path, image_size_px: tuple[int, int], folder: Path) -> list[Path]:
    """Write the programs of a checkpoint's codec, ``NAME.pt2``, and `MANIFEST`; features of another size need others.

    Programs are read back and used in the codec: for features drawn with the training statistics they must give
    the same bytes and, decoding them, the same integers and features. Returns the files. Raises `FcbenchError`: see
    `checkpoint.load`; also a codec that is not a chain of networks and tables, a file that cannot be written, or
    programs that code differently from the codec.
    """
    loaded = checkpoint.load(path)
    codec: Any = loaded.codec
    if not isinstance(codec, ExportableCodec):
        raise FcbenchError(f"codec {loaded.point.codec!r} has no networks to export; give a learned codec's checkpoint")
    if any(s.layout == "BNC" for s in loaded.specs):
        raise FcbenchError(
            f"{path} codes tokens without a place, whose number no image size gives: it cannot be exported"
        )
    grids = {s.name: (-(-image_size_px[0] // s.stride_px), -(-image_size_px[1] // s.stride_px)) for s in loaded.specs}
    with disk_errors(folder, _HINT):
        folder.mkdir(parents=True, exist_ok=True)
    files, ran = [], {}
    for name, (module, example) in codec.programs(grids).items():
        file = folder / f"{name}.pt2"
        with torch.no_grad(), disk_errors(file, _HINT):
            torch.export.save(torch.export.export(module.eval(), example, strict=False), file)
        ran[name] = read(file)
        files.append(file)
    _check(codec, codec.through(ran), loaded, grids)
    said = {
        "codec": loaded.point.codec,
        "params": dict(loaded.point.params),
        "source": asdict(loaded.source),
        "checkpoint_sha256": loaded.sha256,
        "maps": [{**asdict(s), "grid": grids[s.name]} for s in loaded.specs],
        "programs": [f.name for f in files],
        "fcbench": __version__,
        "torch": torch.__version__,
    }
    write_atomically(folder / MANIFEST, json.dumps(said, indent=1) + "\n", _HINT)
    return [*files, folder / MANIFEST]


def read(file: Path) -> nn.Module:
    """A program that `export` wrote, as a module that is called with tensors."""
    module: nn.Module = torch.export.load(file).module()
    return module


def _check(codec: Any, other: Any, loaded: checkpoint.Loaded, grids: Grids) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(_N_CHECKED):
        maps = {}
        for spec, stats in zip(loaded.specs, codec.map_stats):
            noise = torch.randn(1, spec.channels, *grids[spec.name], generator=generator)
            maps[spec.name] = stats.restore(noise)
        payload = codec.encode(Features(maps)).payload
        if other.encode(Features(maps)).payload != payload:
            raise FcbenchError("the exported programs code other bytes than the codec: please report this bug")
        mine, theirs = codec.decode(payload, grids), other.decode(payload, grids)
        same = all(torch.equal(x, theirs.features.maps[name]) for name, x in mine.features.maps.items())
        if mine.check != theirs.check or not same:
            raise FcbenchError("the exported programs decode other values than the codec: please report this bug")
