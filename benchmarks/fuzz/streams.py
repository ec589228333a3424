"""Hostile ``.fcb`` files and checkpoints, of every codec: its golden stream is what is damaged."""

from __future__ import annotations

import json
import lzma
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor

from benchmarks.fuzz.cases import Case, Outcome
from benchmarks.fuzz.damage import SIZES, damaged
from fcbench.codecs.shared.mosaic import MosaicCodec
from fcbench.coders.foreign import pack, seal, unpack, unseal
from fcbench.core.codecs import Decoded
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec
from fcbench.transmit import checkpoint, container, senders
from fcbench.transmit.coders import HERE
from fcbench.transmit.container import ContainerReader, Header, Record

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "streams"
_SLOW = (
    "checkerboard elic elic_joint gained_hyperprior hyperprior hyperprior_joint scale_hyperprior strata strata_joint "
    "sperr sz3"
).split()
"""Codecs of many layers, and those whose libraries end the process most often."""
_KINDS = {"payload": 40, "shapes": 12, "record": 12, "header": 8, "file": 20, "checkpoint": 4, "forged": 4, "pickle": 1}
"""Kinds of cases and their shares."""
_CORRECTED = ("payload", "shapes", "record", "header", "forged")  # Kinds whose checksums are made right again
_DTYPES = (torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16)


class Bomb:
    """A pickle that would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


class StreamSubject:
    """A codec with its checkpoint and stream. `scratch`: a folder for files."""

    def __init__(self, name: str, scratch: Path) -> None:
        self.codec, self.name = name, f"codec:{name}"
        self.weight = 1.0 if name in _SLOW else 4.0
        self._checkpoint, self._stream = scratch / f"{name}.safetensors", scratch / f"{name}.fcb"
        self._good = lzma.decompress((GOLDEN / f"{name}.safetensors.xz").read_bytes())
        self._checkpoint.write_bytes(self._good)
        self._loaded = checkpoint.load(self._checkpoint)
        self._file = (GOLDEN / f"{name}.fcb").read_bytes()
        self._stream.write_bytes(self._file)
        self._reader = ContainerReader(self._stream)
        self._records = list(self._reader)
        self._clean = [self._maps(r) for r in self._records]
        self._others = [p.read_bytes() for p in sorted(GOLDEN.glob("*.fcb"))]
        n_header = int.from_bytes(self._good[:8], "little")
        self._meta = json.loads(json.loads(self._good[8 : 8 + n_header])["__metadata__"]["fcbench_codec"])
        self._state = safetensors.load(self._good)

    def contains(self, case: Case) -> bool:
        return isinstance(self._loaded.codec, MosaicCodec) and case.kind in _CORRECTED

    # ------------------------------------------------------------------------------------------- draw
    def draw(self, rng: Random) -> Case:
        (kind,) = rng.choices(list(_KINDS), list(_KINDS.values()))
        return Case(self.name, kind, getattr(self, f"_draw_{kind}")(rng))

    def _draw_payload(self, rng: Random) -> dict[str, Any]:
        number = rng.randrange(len(self._records))
        return {"number": number, "payload": self._payload(rng, number)}

    def _draw_shapes(self, rng: Random) -> dict[str, Any]:
        number = rng.randrange(len(self._records))
        payload = self._records[number].payload if rng.random() < 0.5 else self._payload(rng, number)
        return {"number": number, "payload": payload, "shapes": self._shapes(rng, number)}

    def _draw_record(self, rng: Random) -> dict[str, Any]:
        found = self._draw_shapes(rng) if rng.random() < 0.5 else self._draw_payload(rng)
        n_symbols = rng.choice((*SIZES, self._records[found["number"]].n_symbols))
        return {**found, "n_symbols": n_symbols, "check": rng.randrange(1 << 16)}

    def _draw_header(self, rng: Random) -> dict[str, Any]:
        specs = [[s.name, s.channels, s.stride_px] for s in self._loaded.specs]
        header: dict[str, Any] = {"codec": self.codec, "prefix": self._reader.header.checkpoint_sha256, "specs": specs}
        shapes = [list(size) for size in self._records[0].shapes.values()]
        header |= {"shapes": shapes, "n_symbols": self._records[0].n_symbols, "n_records": len(self._records)}
        spec, size = rng.choice(specs), rng.choice(shapes)
        name = rng.choice(("", "fine", "raw", "\x1b[31m", "ä" * 300, self.codec[:-1]))
        rng.choice(
            [
                lambda: header.update(codec=name),
                lambda: header.update(prefix=rng.randbytes(16).hex()),
                lambda: header.update(n_symbols=rng.choice(SIZES)),
                lambda: header.update(n_records=rng.choice(SIZES) % (1 << 32)),
                lambda: header.update(specs=specs * rng.choice((0, 2)), shapes=shapes * 2),
                lambda: spec.__setitem__(0, name),
                lambda: spec.__setitem__(rng.choice((1, 2)), rng.choice(SIZES)),
                lambda: size.__setitem__(rng.choice((0, 1)), rng.choice(SIZES)),
            ]
        )()
        return header

    def _draw_file(self, rng: Random) -> dict[str, Any]:
        return {"file": damaged(self._file, rng, self._others)}

    def _draw_checkpoint(self, rng: Random) -> dict[str, Any]:
        """Places and new bytes, or a number of the header's JSON: the whole file would be too long to keep."""
        n_header = int.from_bytes(self._good[:8], "little")
        end = rng.choice((8, 8 + n_header, len(self._good)))
        edits = [[rng.randrange(end), rng.randbytes(rng.choice((1, 2, 8))).hex()] for _ in range(rng.choice((1, 3)))]
        tensor = rng.choice(list(self._state))
        declared = {"dtype": rng.choice(("F64", "I64", "BOOL", "X9", "F16")), "shape": [rng.choice(SIZES)] * 2}
        field = rng.choice(["", "", "dtype", "shape"])
        return {"edits": [] if field else edits, "cut": rng.choice((0, 0, 1, 7, 4000)), "tensor": tensor} | (
            {"field": field, "value": declared[field]} if field else {}
        )

    def _draw_forged(self, rng: Random) -> dict[str, Any]:
        how = rng.choice("nan inf huge tiny random dtype shape drop rename swap add longer".split())
        name = rng.choice(list(self._state))
        found: dict[str, Any] = {"how": how, "tensor": name, "seed": rng.randrange(1 << 30), "share": rng.random()}
        found["dtype"], found["other"] = rng.randrange(len(_DTYPES)), rng.choice(list(self._state))
        if rng.random() < 0.25:
            values: tuple[Any, ...] = (None, -1, 0, 1 << 40, 0.5, 1e300, "", "x", [], {}, [[]])
            found = {"how": "meta", "field": rng.choice(list(self._meta)), "value": rng.choice(values)}
            if rng.random() < 0.5:
                spec = {"name": "x", "channels": rng.choice(SIZES), "stride_px": rng.choice(SIZES), "layout": "BCHW"}
                found |= {"field": "specs", "value": [spec] * rng.choice((1, 2))}
            elif rng.random() < 0.5:
                params = {k: rng.choice(values) for k in self._meta["params"]}
                found |= {"field": "params", "value": params}
        return found

    def _draw_pickle(self, rng: Random) -> dict[str, Any]:
        return {"protocol": rng.randrange(6), "torch": rng.random() < 0.5}

    def _payload(self, rng: Random, number: int) -> bytes:
        """A damaged payload; the seal of a mosaic's is made right again, and its strings may be sent whole."""
        good = self._records[number].payload
        others = [r.payload for r in self._records] + self._others
        if not isinstance(self._loaded.codec, MosaicCodec):
            return damaged(good, rng, others)
        if rng.random() < 0.5:
            body = damaged(unseal(good), rng, others)
        else:
            heads = self._loaded.codec._starts()
            strings = unpack(unseal(good), heads)
            which = rng.randrange(len(strings))
            strings[which] = damaged(strings[which], rng, [*strings, *others])
            body = b"".join(pack(strings, [b""] * len(heads)))
        return seal(body) + body

    def _shapes(self, rng: Random, number: int) -> list[list[int]]:
        shapes = [list(size) for size in self._records[number].shapes.values()]
        if rng.random() < 0.2:
            return [size[::-1] for size in shapes[::-1]]
        for _ in range(rng.choice((1, 2))):
            rng.choice(shapes)[rng.choice((0, 1))] = rng.choice(SIZES)
        return shapes

    # -------------------------------------------------------------------------------------------- run
    def run(self, case: Case) -> Outcome:
        found: Outcome = getattr(self, f"_run_{case.kind}")(case.data)
        return found

    def _run_payload(self, data: Mapping[str, Any]) -> Outcome:
        record = self._record(data)
        decoded = self._loaded.codec.decode(record.payload, record.shapes)
        record = replace(record, n_symbols=decoded.n_symbols, check=decoded.check)  # made right
        return self._judged(senders.verified(record, decoded, self._checkpoint), record.shapes, data["number"])

    _run_shapes = _run_payload

    def _run_record(self, data: Mapping[str, Any]) -> Outcome:
        record = replace(self._record(data), n_symbols=data["n_symbols"], check=data["check"])
        decoded = self._loaded.codec.decode(record.payload, record.shapes)
        return self._judged(senders.verified(record, decoded, self._checkpoint), record.shapes, data["number"])

    def _run_header(self, data: Mapping[str, Any]) -> Outcome:
        specs = tuple(FeatureSpec(*spec) for spec in data["specs"])
        names = [s.name for s in specs]
        common = container._Common(dict(zip(names, map(tuple, data["shapes"]))), data["n_symbols"])
        head = container._pack_header(Header(data["codec"], data["prefix"], specs), common, data["n_records"])
        n_head = 7 + int.from_bytes(self._file[5:7], "little") + 4
        return self._received(head + self._file[n_head:])

    def _run_file(self, data: Mapping[str, Any]) -> Outcome:
        found = self._received(data["file"])
        return Outcome.WRONG if found == Outcome.OTHER else found

    def _run_checkpoint(self, data: Mapping[str, Any]) -> Outcome:
        content = bytearray(self._good)
        for at, new in data["edits"]:
            content[at : at + len(new) // 2] = bytes.fromhex(new)
        if "field" in data:
            n_header = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + n_header])
            header[data["tensor"]][data["field"]] = data["value"]
            head = json.dumps(header).encode()
            content[: 8 + n_header] = len(head).to_bytes(8, "little") + head
        found = self._with_checkpoint(bytes(content[: len(content) - data["cut"]]))
        return Outcome.WRONG if found == Outcome.OTHER else found

    def _run_forged(self, data: Mapping[str, Any]) -> Outcome:
        meta = {k: v for k, v in self._meta.items() if k != "digest"}
        state = dict(self._state)
        if data["how"] == "meta":
            meta[data["field"]] = data["value"]
        else:
            _forge(state, data)
        whole = json.dumps({**meta, "digest": checkpoint._digest(meta, state)})
        return self._with_checkpoint(safetensors.save(state, {"fcbench_codec": whole}))

    def _run_pickle(self, data: Mapping[str, Any]) -> Outcome:
        proof = self._checkpoint.with_name("bomb")
        path = self._checkpoint.with_name("pickle.safetensors")
        if data["torch"]:
            torch.save(Bomb(proof), path)
        else:
            path.write_bytes(pickle.dumps(Bomb(proof), data["protocol"]))
        try:
            checkpoint.load(path)
            return Outcome.WRONG
        except FcbenchError:
            return Outcome.WRONG if proof.exists() else Outcome.REFUSED

    # ------------------------------------------------------------------------------------------- judge
    def _record(self, data: Mapping[str, Any]) -> Record:
        record = self._records[data["number"]]
        names = list(record.shapes)
        shapes = {n: (h, w) for n, (h, w) in zip(names, data.get("shapes") or record.shapes.values())}
        return replace(record, payload=data["payload"], shapes=shapes)

    def _maps(self, record: Record) -> dict[str, Tensor]:
        decoded = self._loaded.codec.decode(record.payload, record.shapes)
        record.verify(decoded)
        return decoded.features.maps

    def _judged(self, decoded: Decoded, shapes: Mapping[str, tuple[int, int]], number: int) -> Outcome:
        """`SAME`, `OTHER`, or `WRONG` where maps have not the shapes that were claimed."""
        clean = self._clean[number]
        for spec in self._loaded.specs:
            if decoded.features.maps[spec.name].shape != (1, spec.channels, *shapes[spec.name]):
                return Outcome.WRONG
        return _compared([decoded.features.maps], [clean])

    def _received(self, content: bytes) -> Outcome:
        """Outcome of a whole file, read as `fcbench decode` reads it, with the right checkpoint loaded already."""
        path = self._stream.with_name("hostile.fcb")
        path.write_bytes(content)
        reader = ContainerReader(path)
        reader.verify_checkpoint(self._loaded.sha256)
        reader.verify_header(Header(self.codec, self._loaded.sha256, self._loaded.specs), self._checkpoint)
        found = HERE.decode(self._checkpoint, self._loaded, reader)
        return _compared(
            [senders.verified(record, d, self._checkpoint).features.maps for record, (d, _) in found], self._clean
        )

    def _with_checkpoint(self, content: bytes) -> Outcome:
        """Outcome of the clean records, decoded with a hostile checkpoint that their headers are made to name."""
        path = self._checkpoint.with_name("hostile.safetensors")
        path.write_bytes(content)
        loaded = checkpoint.load(path)
        found = []
        for record in self._records:
            decoded = loaded.codec.decode(record.payload, record.shapes)
            record = replace(record, n_symbols=decoded.n_symbols, check=decoded.check)
            found.append(senders.verified(record, decoded, path).features.maps)
        return _compared(found, self._clean)


def _compared(found: Sequence[Mapping[str, Tensor]], clean: Sequence[Mapping[str, Tensor]]) -> Outcome:
    if not all(bool(torch.isfinite(x).all()) for maps in found for x in maps.values()):
        return Outcome.WRONG
    same = len(found) == len(clean) and all(
        a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a) for a, b in zip(found, clean)
    )
    return Outcome.SAME if same else Outcome.OTHER


def _forge(state: dict[str, Tensor], data: Mapping[str, Any]) -> None:
    """Change a tensor of a state dict."""
    name, how, old = data["tensor"], data["how"], state[data["tensor"]].clone()
    generator = torch.Generator().manual_seed(data["seed"])
    fillings = {"nan": float("nan"), "inf": float("inf"), "huge": 1e30, "tiny": 1e-40}
    if how in fillings and old.is_floating_point():
        chosen = torch.rand(old.shape, generator=generator) <= data["share"]
        state[name] = torch.where(chosen, torch.full_like(old, fillings[how]), old)
    elif how in ("random", *fillings):
        noise = torch.randint(-(1 << 20), 1 << 20, old.shape, generator=generator)
        state[name] = noise.to(old.dtype)
    elif how == "dtype":
        state[name] = old.to(_DTYPES[data["dtype"]])
    elif how == "shape":
        state[name] = old.reshape(-1)
    elif how == "drop":
        del state[name]
    elif how == "rename":
        state[f"{name}x"] = state.pop(name)
    elif how == "swap":
        state[name], state[data["other"]] = state[data["other"]].clone(), old
    elif how == "add":
        state[f"{name}x"] = old
    else:
        state[name] = torch.cat([old.reshape(-1)] * 3)
