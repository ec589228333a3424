"""`fcbench verify`: a run's folder passes, and whatever is changed in it is found."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from fcbench.analysis.verify import verify
from fcbench.core.cache import Cache, digest
from fcbench.core.codecs import Bitstream
from fcbench.measure import kept
from fcbench.results import signing
from fcbench.results.checks import Checks
from fcbench.results.samples import SAMPLES, pack
from fcbench.transmit.container import ContainerReader, ContainerWriter, Record


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, as of a clean checkout, with the streams of a fixed and a learned codec."""
    shutil.copytree(finished, tmp_path / "run")
    rates = tmp_path / "run" / "rates.csv"
    rates.write_text(rates.read_text().replace("-dirty", ""))
    kept = {_stream(tmp_path / "run", codec).stem for codec in ("uniform", "hyperprior")}
    for file in (tmp_path / "run" / "streams").iterdir():
        if file.stem not in kept:
            file.unlink()
    return tmp_path / "run"


@pytest.fixture
def check(folder: Path, cache: Path) -> Callable[..., Checks]:
    """A check of the folder with the cache of its run, or another one."""

    def call(cache_dir: Path = cache) -> Checks:
        checks = verify(folder, with_intervals=False)
        kept.check(folder, Cache(cache_dir), checks, lambda done, total: None)
        return checks

    return call


def _coded(folder: Path, codec: str = "uniform") -> pd.Series:
    """The first row of a codec; the stream that its tasks share is named after it."""
    rows = _rows(folder)
    return rows[rows["codec"] == codec].iloc[0]


def _rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rates.csv", keep_default_na=False, dtype=str)


def _provenance(folder: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return contents


def _change(folder: Path, which: Callable[[pd.DataFrame], pd.Series], **cells: object) -> None:
    rows = _rows(folder)
    rows.loc[which(rows), list(cells)] = [str(cell) for cell in cells.values()]
    rows.to_csv(folder / "rates.csv", index=False)


def _stream(folder: Path, codec: str = "uniform") -> Path:
    return folder / "streams" / f"{digest({'job': _coded(folder, codec)['point']})}.fcb"


def _found(checks: Checks, what: str, file: str = "rates.csv", point: str = "") -> bool:
    """Whether one of the faults is of this file and row, with these words."""
    return any(what in f.what and f.file == file and f.row.startswith(point) for f in checks.faults)


def test_a_finished_run_passes(fcbench: Callable[..., Result], folder: Path, cache: Path) -> None:
    result = fcbench("verify", folder, "--cache-dir", cache)
    assert result.exit_code == 0, result.output
    assert result.output == (
        f"{folder}: holds what it claims; checked 26 rates, 52 values, 52 intervals, 2 streams, 2 streams decoded, "
        "2 feature errors; not checked: 9 streams (not kept); not signed\n"
    )


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("value", 0.123456, "value is 0.123456, but for miou its samples in samples.parquet/"),
        ("ci_high", 0.999, "ci_high is 0.999, but for miou its samples"),
        ("metric", "iou", "no row of its miou"),
        ("bpp", 1e-3, "bpp is 0.001, but"),
        ("bpp_content", 1e-3, "its parts give"),
        ("parts", '{"z": 1}', "its parts are 1 bytes"),
        ("parts", "none", "its rates cannot be computed"),
        ("rate_alarm", True, "coded and estimated rates give 0"),
        ("n_bytes", 7, "n_bytes is 7, but"),
        ("seed", 7, "in other rows of its point"),
        ("n_samples", 9, "in other rows of its point"),
        ("value", "", "miou is empty"),
    ],
)
def test_a_changed_cell_is_found(folder: Path, column: str, cell: object, words: str) -> None:
    row = _coded(folder)
    _change(folder, lambda rows: (rows["point"] == row["point"]) & (rows["metric"] == "miou"), **{column: cell})
    assert _found(verify(folder), words, point=row["point"]), verify(folder).faults


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("run", "another", "points are of run 'another', which provenance.json does not hold"),
        ("commit", "abc-dirty", "differed from its commit"),
        ("weights_sha256", "", "no sha256"),
    ],
)
def test_changed_origins_are_found(folder: Path, column: str, cell: str, words: str) -> None:
    _change(folder, lambda rows: rows["kind"] == "coded", **{column: cell})
    assert _found(verify(folder), words, "provenance.json")


def test_one_of_several_tasks_that_tells_another_file_is_found(folder: Path) -> None:
    row = _coded(folder)
    _change(folder, lambda rows: rows["point"] == row["point"], feature_mse=0.5)
    checks = verify(folder)
    assert _found(checks, "which read the same file") and _found(checks, "feature_mse is 0.5, but its samples in")
    assert all("feature_mse is " in f.what for f in checks.faults)


@pytest.mark.parametrize(
    ("column", "cell", "words", "file"),
    [
        ("feature_mse", 0.5, "feature_mse is 0.5, but streams/", "rates.csv"),
        ("bpp_estimated", 0.5, "bpp_estimated is 0.5, but streams/", "rates.csv"),
        ("parts", "other", "parts of its row are others", "stream"),
        ("encoder", "hiera_nano", "encoder and its weights of its row are others", "stream"),
        ("checkpoint_bytes", 7, "bytes of the checkpoint of its row are others", "stream"),
    ],
)
def test_what_all_tasks_tell_wrong_is_found_by_decoding(
    folder: Path, check: Callable[[], Checks], column: str, cell: object, words: str, file: str
) -> None:
    row, same = _coded(folder), ["kind", "codec", "params"]
    cell = row["parts"].replace("y", "z") if cell == "other" else cell
    _change(folder, lambda rows: (rows[same] == row[same]).all(axis=1), **{column: cell})
    at_once = ("rate_alarm", "feature_mse is 0.5, but its samples in")
    faults = [f.what for f in verify(folder, with_intervals=False).faults]
    assert all(any(words in what for words in at_once) for what in faults)
    found = f"streams/{_stream(folder).name}" if file == "stream" else file
    assert _found(check(), words, found, row["point"])


def test_other_pixels_are_found_in_the_features(folder: Path, check: Callable[[], Checks]) -> None:
    rows = _rows(folder)
    for column in ("bpp", "bpp_content", "bpp_estimated"):
        coded = rows[column] != ""
        rows.loc[coded, column] = (rows.loc[coded, column].astype(float) / 2).map(repr)
    rows["n_px"] = (2 * rows["n_px"].astype(int)).map(str)
    rows.to_csv(folder / "rates.csv", index=False)
    assert not verify(folder).faults
    assert _found(check(), "n_px is")


def test_another_operating_point_is_found_in_the_checkpoint(folder: Path, check: Callable[[], Checks]) -> None:
    row = _coded(folder)
    _change(folder, lambda rows: rows["params"] == row["params"], params='{"lmbda": 77.0}')
    checkpoint = _stream(folder).with_suffix(".safetensors")
    assert not verify(folder).faults
    assert _found(
        check(), "parameters of the codec of its row are others", f"streams/{_stream(folder).name}", row["point"]
    )
    _change(folder, lambda rows: rows["params"] == '{"lmbda": 77.0}', params=row["params"], checkpoint_sha256="ab")
    assert _found(check(), "not the checkpoint of its row", f"streams/{checkpoint.name}", row["point"])


def test_deleted_rows_are_found(folder: Path, check: Callable[[], Checks]) -> None:
    row, stream, rows = _coded(folder), _stream(folder), _rows(folder)
    rows[(rows["point"] != row["point"]) | (rows["metric"] == "miou")].to_csv(folder / "rates.csv", index=False)
    assert _found(check(), "no row of its pixel_accuracy", point=row["point"])
    rows[rows["point"] != row["point"]].to_csv(folder / "rates.csv", index=False)
    checks = check()
    assert _found(checks, f"samples of point {row['point']}, which has no row", f"{SAMPLES}/{row['point']}.parquet")
    assert _found(checks, "belongs to no row", f"streams/{stream.name}")


def test_changed_samples_are_found(folder: Path, check: Callable[[], Checks]) -> None:
    point = _coded(folder)["point"]
    file, name = folder / SAMPLES / f"{point}.parquet", f"{SAMPLES}/{point}.parquet"
    whole = pq.read_table(file, partitioning=None)

    def replace(column: str, values: list[object]) -> Checks:
        place = whole.schema.get_field_index(column)
        pq.write_table(whole.set_column(place, column, pa.array(values, whole.schema.field(column).type)), file)
        return check()

    stats, sizes = whole.column("stats").to_pylist(), whole.column("n_bytes").to_pylist()
    assert _found(replace("stats", [[x + 1 for x in stats[0]], *stats[1:]]), f"its samples in {name} give", point=point)
    assert _found(replace("stats", [s[:-1] for s in stats]), "its samples cannot be read", name, point)
    assert _found(replace("n_bytes", [sizes[0] + 1, *sizes[1:]]), "samples of", name, point)
    swapped = replace("n_bytes", [sizes[0] + 1, sizes[1] - 1, *sizes[2:]])
    assert _found(swapped, "sizes of samples of its row are others", f"streams/{_stream(folder).name}", point)
    pq.write_table(whole.slice(1), file)
    assert _found(check(), "7 different samples, but its rows say 8", name, point)
    shutil.copyfile(next(f for f in sorted(file.parent.iterdir()) if f != file), file)
    assert _found(check(), "of another point", name, point)
    file.write_bytes(b"PAR1")
    assert _found(check(), "is damaged", name, point)
    file.unlink()
    assert _found(check(), "no samples", point=point)
    shutil.rmtree(file.parent)
    checks = check()
    assert not checks.faults and checks.left["values and intervals (no samples kept)"] == 52


def test_packed_samples_are_checked(folder: Path) -> None:
    row, packed = _coded(folder), pack(folder)
    shutil.rmtree(folder / SAMPLES)
    assert not verify(folder).faults and verify(folder).done["values"] == len(_rows(folder))
    _change(folder, lambda rows: (rows["point"] == row["point"]) & (rows["metric"] == "miou"), value=0.1)
    assert _found(verify(folder), f"its samples in {packed.name} give", point=row["point"])
    rows = _rows(folder)
    rows[rows["point"] != row["point"]].to_csv(folder / "rates.csv", index=False)
    assert _found(verify(folder), f"samples of point {row['point']}, which has no row", packed.name)


def test_changed_streams_are_found(folder: Path, check: Callable[..., Checks], tmp_path: Path) -> None:
    stream, point = _stream(folder), _coded(folder)["point"]
    name, content = f"streams/{stream.name}", stream.read_bytes()
    stream.write_bytes(_stream(folder, "hyperprior").read_bytes())
    checks = check()
    assert _found(checks, "codec and checkpoint of its row are others", name, point)
    assert _found(checks, "was coded with the checkpoint", name, point)
    stream.write_bytes(content[:-1])
    assert _found(check(), "truncated", name, point)
    stream.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert _found(check(), "CRC mismatch", name, point)
    stream.unlink()
    assert _found(check(), "its stream is missing", f"streams/{stream.stem}.safetensors", point)
    stream.with_suffix(".safetensors").unlink()
    checks = check()
    assert not checks.faults and checks.left == {"streams (not kept)": 10}


@pytest.fixture(scope="module")
def pictures(tiny: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an image coder and of labels, with a stream of each."""
    out = tmp_path_factory.mktemp("pictures") / "run"
    more = ("--task", "segmentation", "--codec", "image:jpeg", "--codec", "label", "--keep-streams")
    result = tiny(out, *more)
    assert result.exit_code == 0, result.output
    kept = [_stream(out, codec) for codec in ("image:jpeg", "label")]
    for file in (out / "streams").iterdir():
        if file not in kept:
            file.unlink()
    return out


def _decoded(folder: Path, trust: bool = True) -> Checks:
    """A check of a folder's streams without features."""
    checks = Checks()
    kept.check(folder, Cache(folder / "no-cache"), checks, lambda done, total: None, trust)
    return checks


@pytest.mark.parametrize("trust", [False, True])
def test_images_and_labels_are_decoded(pictures: Path, trust: bool) -> None:
    checks = _decoded(pictures, trust)
    assert not checks.faults and checks.done == {"streams": 2, "streams decoded": 2}
    assert checks.left == {"streams (not kept)": 6, "feature errors (of images: no encoder runs here)": 1}


@pytest.mark.parametrize("codec", ["image:jpeg", "label"])
def test_forged_images_and_labels_are_found(pictures: Path, tmp_path: Path, codec: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(pictures, folder)
    stream, point = _stream(folder, codec), _coded(folder, codec)["point"]
    reader = ContainerReader(stream)
    first, *others = list(reader)

    def forged(record: Record, trust: bool = True) -> Checks:
        """A check of the folder with another first sample, and all checksums of the file right."""
        with ContainerWriter(stream, reader.header) as writer:
            for r in (record, *others):
                writer.append(Bitstream({"": r.payload}, r.n_symbols, r.check), r.shapes)
        return _decoded(folder, trust)

    assert not forged(first).faults
    name, zeros = f"streams/{stream.name}", replace(first, payload=bytes(len(first.payload)))
    assert _found(forged(replace(first, check=first.check ^ 1)), "record 0: the decoder is out of step", name, point)
    assert _found(forged(zeros, trust=False), "record 0: ", name, point)
    stream.write_bytes(stream.read_bytes()[:-1] + b"\0")
    assert _found(_decoded(folder), "record 7: CRC mismatch", name, point)


def test_images_of_another_size_or_other_parts_are_found(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(pictures, folder)
    row, name = _coded(folder, "image:jpeg"), f"streams/{_stream(folder, 'image:jpeg').name}"
    parts = {part: n + (part == "image") - (part == "headers") for part, n in json.loads(row["parts"]).items()}
    _change(folder, lambda rows: rows["point"] == row["point"], image_size="7x9", parts=json.dumps(parts))
    checks = _decoded(folder)
    assert _found(checks, "sizes of images of its row are others: ", name, row["point"])
    assert _found(checks, "parts of its row are others", name, row["point"])


def test_a_coder_that_is_not_here_is_told(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(pictures, folder)
    _change(folder, lambda rows: rows["codec"] == "label", task="counting")
    checks = _decoded(folder)
    assert not checks.faults and checks.left["streams not decoded (no plug-in label 'counting' here)"] == 1


def test_a_stream_is_also_that_of_tasks_it_is_not_named_after(folder: Path, check: Callable[[], Checks]) -> None:
    row = _coded(folder)
    _change(folder, lambda rows: rows["point"] == row["point"], status="boom")
    checks = check()
    assert {f.what for f in checks.faults} == {"failed: boom"} and checks.done["feature errors"] == 2


def test_checkpoints_and_features_come_from_the_cache(
    folder: Path, check: Callable[..., Checks], tmp_path: Path
) -> None:
    empty = check(tmp_path)
    assert not empty.faults and empty.done["streams decoded"] == 2
    assert empty.left[f"feature errors (features are not in {tmp_path})"] == 2
    _stream(folder).with_suffix(".safetensors").unlink()
    whole = check()
    assert not whole.faults and whole.done["feature errors"] == 2
    assert check(tmp_path).left[f"streams not decoded (checkpoints are neither kept nor in {tmp_path})"] == 1


def test_faults_are_a_table_and_an_exit_status(fcbench: Callable[..., Result], folder: Path, cache: Path) -> None:
    row, name = _coded(folder), f"streams/{_stream(folder).name}"
    _stream(folder).write_bytes(b"")
    (folder / "provenance.json").unlink()
    result = fcbench("verify", folder, folder / "streams", "--cache-dir", cache)
    assert (
        result.exit_code == 1
        and "1 of 2 folders do not hold what they claim; 1 of 2 folders cannot be" in result.output
    )
    assert re.search(rf"{name} +{row['point']}: ", result.output) and f"{folder}: 2 faults; checked" in result.output
    assert f"{folder / 'streams'}: cannot be checked: no rates.csv" in result.output


def test_a_signed_folder_tells_what_changed(
    fcbench: Callable[..., Result], tiny: Callable[..., Result], folder: Path, cache: Path
) -> None:
    at = "--cache-dir", cache
    signed = fcbench("verify", "--sign", folder, *at)
    found = re.search(r"; signed: sha256 ([0-9a-f]{64})\n", signed.output)
    assert signed.exit_code == 0 and found, signed.output
    again = fcbench("verify", folder, *at)
    assert again.exit_code == 0 and f"unchanged since, sha256 {found[1]}\n" in again.output, again.output
    record = _provenance(folder)["signed"]
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    assert set(record["files"]) == files and record["sha256"] == found[1]
    assert record["files"]["rates.csv"] == hashlib.sha256((folder / "rates.csv").read_bytes()).hexdigest()

    first_run = json.dumps(_provenance(folder)["runs"][0]["run"]).encode()
    for name, old, new, what in (
        ("curves.png", b"", None, "missing since the folder was signed"),
        ("notes/new.txt", b"", b"new", "added since the folder was signed"),
        ("rates.csv", b"segmentation", b"depth", "changed since the folder was signed"),
        ("provenance.json", first_run, b'"another"', "changed since the folder was signed"),
    ):
        copy = folder.with_name("copy")
        shutil.copytree(folder, copy)
        file = copy / name
        if new is None:
            file.unlink()
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(file.read_bytes().replace(old, new) if old else new)
        checks = Checks()
        assert "changed since" in signing.check(copy, checks)
        assert [(f.what[: len(what)], f.file) for f in checks.faults] == [(what, name)]
        shutil.rmtree(copy)

    longer = tiny(folder, "--task", "segmentation", "--codec", "image:jpeg")
    assert longer.exit_code == 0, longer.output
    _change(folder, lambda rows: rows["commit"] != "", commit="abc")
    result = fcbench("verify", folder, *at)
    assert result.exit_code == 1 and re.search(r"rates\.csv +changed since the folder was signed", result.output)
    assert fcbench("verify", "--sign", folder, *at).exit_code == 0
    assert "unchanged since" in fcbench("verify", folder, *at).output


def test_a_signature_that_was_edited_is_found(folder: Path) -> None:
    signing.sign(folder)
    contents = _provenance(folder)
    contents["signed"]["sha256"] = "0" * 64
    (folder / "provenance.json").write_text(json.dumps(contents))
    checks = Checks()
    signing.check(folder, checks)
    assert [f.what for f in checks.faults] == ["the signature's hash is not that of its list of files"]


def test_a_folder_with_faults_is_not_signed(fcbench: Callable[..., Result], folder: Path, cache: Path) -> None:
    _change(folder, lambda rows: rows["metric"] == "miou", value=0.5)
    result = fcbench("verify", "--sign", folder, "--cache-dir", cache)
    assert result.exit_code == 1 and "; not signed\n" in result.output
    assert "signed" not in _provenance(folder)
