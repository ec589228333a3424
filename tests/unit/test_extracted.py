"""Features that somebody else extracted: manifests, arrays of any layout, and what a command says of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.manifest import Decoded, Entry, Manifest
from fcbench.core.samples import DataOptions
from fcbench.core.tasks import metric_values
from fcbench.features.encoding import build_encoder
from fcbench.tasks.features import FeaturesTask, printed

SIZES = {"C": 5, "H": 3, "W": 2, "N": 8}
LAYOUTS = {
    "CHW": None,
    "HWC": None,
    "BCHW": None,
    "BWHC": None,
    "NC": (3, 2),
    "BNC": (3, 2),
    "CN": None,
    "C": None,
    "BC": None,
}
"""Layout of a sample -> grid of its tokens."""

Write = Callable[..., Path]


def arrays(layout: str, n: int = 4) -> np.ndarray:
    """Arrays of n samples, without B in the layout."""
    shape = [SIZES[a] for a in layout.removeprefix("B")]
    return np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes two training and two test samples of one map."""

    def make(layout: str = "NC", file: str = "{id}.npy", **entry: Any) -> Path:
        folder = tmp_path / "given"
        samples = [{"id": f"s{i}", "split": "train" if i < 2 else "test", "size_px": [6, 4]} for i in range(4)]
        for i, array in enumerate(arrays(layout)):
            one = array[None] if layout[0] == "B" else array
            path = folder / file.format(id=f"s{i}", split=samples[i]["split"])
            path.parent.mkdir(parents=True, exist_ok=True)
            if "{id}" not in file:
                one = arrays(layout)[:2] if i < 2 else arrays(layout)[2:]
            if path.suffix == ".npy":
                np.save(path, one)
            else:
                save_file({"m": one}, path)
        maps = {"m": {"layout": layout, "file": file, **entry}}
        (folder / "manifest.json").write_text(json.dumps({"name": "toy", "maps": maps, "samples": samples}))
        return folder

    return make


def change(folder: Path, **values: Any) -> None:
    """Change a manifest."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("file", ["{id}.npy", "sub/{id}.safetensors", "{split}.npy", "{split}/all.safetensors"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_decoded_lies_as_what_was_given(layout: str, file: str, write: Write, tmp_path: Path) -> None:
    if "{id}" not in file and layout[0] != "B":
        pytest.skip("a file of several samples has B in front")
    grid = LAYOUTS[layout]
    own = {"grid": grid, "global_tokens": SIZES["N"] - 6} if grid else {}
    manifest = Manifest.read(write(layout, file, **own))
    decoded = Decoded(manifest, tmp_path / "decoded")
    for i, sample in enumerate(manifest.of_split("test")):
        maps = manifest.read_maps(sample)
        assert {n: m.shape for n, m in maps.items()} == manifest.shapes and list(maps) == list(manifest.specs)
        array = arrays(layout)[2 + i]
        assert sorted(np.concatenate([m.ravel() for m in maps.values()])) == sorted(array.ravel())
        if grid:
            np.testing.assert_array_equal(maps["m"][:, 1, 0], array[2 + 2])
            np.testing.assert_array_equal(maps["m.global"][:, 0, 1], array[1])
        decoded.add(sample, maps)
    decoded.finish()
    again = Manifest.read(tmp_path / "decoded")
    assert [s.id for s in again.samples] == ["s2", "s3"]
    for path in again.files[1:]:
        name = path.relative_to(again.folder)
        assert path.read_bytes() == (manifest.folder / name).read_bytes()


def test_layouts_say_what_has_a_place() -> None:
    for layout, expected in {"CHW": "BCHW", "NC": "BNC", "C": "BNC"}.items():
        maps = Entry(layout, "{id}.npy").to_maps("m", arrays(layout)[0])
        assert maps["m"].ndim == 3 and (maps["m"].shape[1] == 1) == (expected == "BNC")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"maps": {}}, "must name a map"),
        ({"maps": {"m": {"file": "{id}.npy"}}}, "missing 1 required .*'layout'"),
        ({"maps": {"m": {"layout": "XY", "file": "{id}.npy"}}}, "layout must be text of the axes C and H, W"),
        ({"maps": {"m": {"layout": "NC", "file": "a.npy"}}}, "file must be .* with {id} or {split}"),
        ({"maps": {"m": {"layout": "NC", "file": "../{id}.npy"}}}, "file must be .* below the manifest"),
        ({"maps": {"m": {"layout": "NC", "file": "{id}.npy", "gird": [1, 2]}}}, "Did you mean 'grid'"),
        ({"maps": {"m": {"layout": "NC", "file": "{id}.npy", "global_tokens": 1}}}, "beside a grid"),
        ({"maps": {"a/b": {"layout": "NC", "file": "{id}.npy"}}}, "of letters, digits"),
        ({"name": "a b"}, "name must be text of letters, digits"),
        ({"samples": [{"id": "s0", "split": "val", "size_px": [1, 1]}]}, "split must be 'train' or 'test', got 'val'"),
        ({"samples": [{"id": "../s0", "split": "test", "size_px": [1, 1]}]}, "stays below the folder"),
        ({"samples": [{"id": "s0", "split": "test", "size_px": [1, 1]}] * 2}, "names a sample of a split twice"),
        ({"samples": [{"id": "s0", "split": "test", "size_px": [1, 1]}]}, "no sample of the split 'train': codecs"),
        ({"samples": [{"id": "s0", "split": "train", "size_px": [1, 1]}]}, "no sample of the split 'test'"),
        ({"samples": [{"id": "s0", "split": "train"}]}, "missing 1 required .*'size_px'"),
        (
            {"maps": {"m": {"layout": "NC", "file": "{id}.npy", "grid": [2, 2]}}},
            r"has 8 tokens, 0 and a grid \(2, 2\) are 4",
        ),
        ({"maps": {"m": {"layout": "CHW", "file": "{id}.npy"}}}, r"its shape \[8, 5\] is not CHW"),
        ({"more": 1}, "unknown field of Manifest 'more'"),
    ],
)
def test_bad_manifests_are_one_line(values: dict[str, Any], words: str, write: Write, tmp_path: Path) -> None:
    folder = write()
    change(folder, **values)
    with pytest.raises(FcbenchError, match=words) as caught:
        registry.get("dataset", "extracted").open("test", DataOptions(folder, tmp_path))
        registry.build_encoder("extracted", str(folder), torch.device("cpu"))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="cannot read .*manifest.json, which says"):
        Manifest.read(tmp_path)
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(FcbenchError, match="is not a manifest of features"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((8, 5), np.nan), "sample s3 holds NaN or infinity"),
        (np.full((8, 5), -np.inf), "sample s3 holds NaN or infinity"),
        (np.zeros((7, 5)), r"sample s3 has the shape \(C, h, w\) = \(5, 1, 7\), that of s0 has \(5, 1, 8\)"),
        (np.zeros((1, 8, 5)), r"its shape \[1, 8, 5\] is not NC"),
        (np.array([{}]), "s3: .*Python objects"),
    ],
)
def test_bad_arrays_are_named(array: np.ndarray, words: str, write: Write) -> None:
    folder = write()
    np.save(folder / "s3.npy", array)
    manifest = Manifest.read(folder)
    with pytest.raises(FcbenchError, match=words):
        manifest.read_maps(manifest.samples[3])


def test_a_file_that_lacks_is_named(write: Write, tmp_path: Path) -> None:
    folder = write()
    (folder / "s1.npy").unlink()
    with pytest.raises(FcbenchError, match="s1.npy is missing; manifest.json names it for sample s1"):
        registry.get("dataset", "extracted").open("train", DataOptions(folder, tmp_path))
    with pytest.raises(FcbenchError, match="leave out --image-size"):
        registry.get("dataset", "extracted").open("train", DataOptions(folder, tmp_path, (8, 8)))


def test_a_file_with_too_few_samples_is_refused(write: Write) -> None:
    folder = write("BNC", "{split}.npy")
    np.save(folder / "test.npy", arrays("BNC")[:1])
    manifest = Manifest.read(folder)
    with pytest.raises(FcbenchError, match=r"\[1, 8, 5\] is not BNC with B = 2"):
        manifest.read_maps(manifest.samples[2])


def test_bfloat16_is_read(write: Write) -> None:
    from safetensors.torch import save_file as save_torch

    folder = write(file="{id}.safetensors")
    save_torch({"m": torch.full((8, 5), 1.5, dtype=torch.bfloat16)}, folder / "s3.safetensors")
    manifest = Manifest.read(folder)
    assert (manifest.read_maps(manifest.samples[3])["m"] == 1.5).all()


def test_the_encoder_takes_apart_what_the_data_set_joined(write: Write, tmp_path: Path) -> None:
    folder = write(grid=[3, 2], global_tokens=2)
    data: Any = registry.get("dataset", "extracted").open("test", DataOptions(folder, tmp_path))
    encoder = registry.build_encoder("extracted", str(folder), torch.device("cpu"))
    assert encoder.default_split_point == "all" and encoder.groups["all"] == ("m", "m.global")
    maps = encoder(torch.stack([data[i].image for i in range(2)]), ("m", "m.global")).maps
    for name, spec in encoder.specs.items():
        assert maps[name].shape == (2, spec.channels, *encoder.grid(name, (1, 1)))
        np.testing.assert_array_equal(maps[name][1], data.manifest.read_maps(data.samples[1])[name])
    reduced = build_encoder("extracted@bfloat16", str(folder), torch.device("cpu"))  # which has no parameters
    assert torch.equal(reduced(data[0].image[None], ["m"]).maps["m"], maps["m"][:1])
    with pytest.raises(FcbenchError, match="--features FOLDER"):
        registry.build_encoder("extracted", None, torch.device("cpu"))


def test_maps_of_a_pyramid_have_strides(tmp_path: Path) -> None:
    """Codecs of pyramids begin with the coarsest map, whatever the manifest's order."""
    sides = {"middle": 3, "fine": 13, "coarse": 2}
    for name, side in sides.items():
        np.save(tmp_path / f"s0-{name}.npy", np.zeros((5, side, 7), np.float32))
    np.save(tmp_path / "s0-vector.npy", np.zeros(5, np.float32))
    maps = {
        name: {"layout": "CHW" if name in sides else "C", "file": f"{{id}}-{name}.npy"} for name in (*sides, "vector")
    }
    samples = [{"id": "s0", "split": "test", "size_px": [6, 4]}]
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "toy", "maps": maps, "samples": samples}))
    specs = Manifest.read(tmp_path).specs
    assert {n: s.stride_px for n, s in specs.items()} == {"middle": 4, "fine": 1, "coarse": 6, "vector": 1}


# ------------------------------------------------------------------------------------------------ metrics
def python(text: str) -> str:
    """A command that runs a line of Python."""
    return f'{sys.executable} -c "{text}"'


def test_the_last_line_counts(tmp_path: Path) -> None:
    assert printed(python("import sys; print(len(sys.argv)); print(0.25)"), tmp_path).tolist() == [0.25]
    assert printed(python("print(1, 2)"), tmp_path).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-program", "cannot be run: .*no-such-program"),
        ("'", "cannot be run: No closing quotation"),
        (python("raise SystemExit('on purpose')"), "failed with exit status 1: on purpose"),
        (python("raise SystemExit(3)"), "failed with exit status 3: it printed no error"),
        (python("pass"), "finite number in its last line, got ''"),
        (python("print('accuracy: 1')"), "got 'accuracy: 1'"),
        (python("print('nan')"), "got 'nan'"),
    ],
)
def test_commands_that_say_nothing(command: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match=words):
        printed(command, tmp_path)


@pytest.mark.parametrize(("text", "value", "is_of_each"), [("print(7)", 7, False), ("print(1, 3)", 2, True)])
def test_a_number_of_the_set_has_no_resamples(text: str, value: float, is_of_each: bool, write: Write) -> None:
    manifest = Manifest.read(write())
    task = FeaturesTask(python(text), lower_is_better=True)
    assert not task.metrics[0].higher_is_better
    batch = task.collate([{"features": (manifest, s)} for s in manifest.of_split("test")])
    maps = [manifest.read_maps(s) for _, s in batch]
    said = {"m": torch.from_numpy(np.stack([m["m"] for m in maps])) + 0.5}
    with task.collecting() as collector:
        assert collector is not None
        collector.add(said, batch)
        stats = np.hstack([task.statistics(said, batch), collector.statistics()])
    assert stats.shape == (2, task.n_statistics)
    found = metric_values(registry.get("task", "features"), stats, np.array([[1.0, 1.0], [2.0, 0.0]]))
    assert found["command"][0] == value and found["mse"] == pytest.approx([0.25, 0.25])
    assert np.isfinite(found["command"][1]) == is_of_each and 0 < found["cosine"][0] < 1


@pytest.mark.parametrize("lower", [False, True])
def test_the_manifest_says_where_lower_is_better(lower: bool, write: Write, tmp_path: Path) -> None:
    folder = write()
    change(folder, lower_is_better=lower)
    options = DataOptions(folder, tmp_path, metric_command="true")
    train, test = (registry.get("dataset", "extracted").open(split, options) for split in ("train", "test"))
    task = registry.get("task", "features").build(train, test)
    assert {m.name: m.higher_is_better for m in task.metrics} == {"command": not lower, "mse": False, "cosine": True}


def test_too_many_numbers_are_refused(write: Write) -> None:
    manifest = Manifest.read(write())
    task = FeaturesTask(python("print(1, 2, 3)"), lower_is_better=False)
    batch = [(manifest, s) for s in manifest.of_split("test")]
    said = {"m": torch.from_numpy(np.stack([manifest.read_maps(s)["m"] for _, s in batch]))}
    with task.collecting() as collector, pytest.raises(FcbenchError, match="printed 3 numbers .*expected 1, or 2"):
        assert collector is not None
        collector.add(said, batch)
        collector.statistics()
