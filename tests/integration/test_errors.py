"""Bad input gets one clear line and a non-zero exit, and loses nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from refusals import refused

from fcbench.cli.main import VERBS
from fcbench.core.cache import put
from fcbench.results import row, table

Run = Callable[..., Result]
OF_DEPTH = "--task", "depth", "--codec", "uniform"


@pytest.fixture(scope="module")
def of_depth(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of one task whose density has a scale."""
    out = tmp_path_factory.mktemp("results") / "depth"
    result = tiny(out, *OF_DEPTH)
    assert result.exit_code == 0, result.output
    return out


def measured(folder: Path) -> list[list[str]]:
    """What was measured, by row."""
    columns = ["kind", "codec", "params", "metric", "value", "bpfp", "feature_mse"]
    return table.load(folder)[columns].astype(str).to_numpy().tolist()


@pytest.mark.parametrize(
    ("option", "given", "nearest"),
    [
        ("--codec", "hyperpior", "hyperprior"),
        ("--encoder", "sam_nano", "sam2_nano"),
        ("--task", "segmentatoin", "segmentation"),
        ("--dataset", "scene", "scenes"),
        ("--neck", "neck_3L", "neck_"),
    ],
)
def test_unknown_name(tiny: Run, tmp_path: Path, option: str, given: str, nearest: str) -> None:
    line = refused(tiny(tmp_path / "out", option, given))
    assert given in line and f"Did you mean '{nearest}" in line
    assert not (tmp_path / "out").exists()


def test_unknown_split_point(tiny: Run, tmp_path: Path) -> None:
    assert "'stage3'" in refused(tiny(tmp_path / "out", "--split-point", "stage33"))


def test_unknown_command(fcbench: Run) -> None:
    result = fcbench("rum")
    assert result.exit_code == 2 and "Did you mean 'run'" in result.output


@pytest.mark.parametrize(("option", "value"), [("--lambdas", "a,b"), ("--seeds", "x"), ("--image-size", "12y")])
def test_malformed_option(tiny: Run, tmp_path: Path, option: str, value: str) -> None:
    result = tiny(tmp_path / "out", option, value)
    assert result.exit_code == 2 and value.split(",")[0] in result.output


def test_codec_parameter_out_of_range(tiny: Run, tmp_path: Path) -> None:
    result = tiny(tmp_path / "out", "--codec", "hyperprior", "--lambdas", "-1", "--task", "segmentation")
    assert "lmbda" in refused(result)


def test_data_root_missing(tiny: Run, tmp_path: Path) -> None:
    assert "--data-root" in refused(tiny(tmp_path / "o", "--dataset", "camvid", "--task", "segmentation"))


def test_data_root_without_the_layout(tiny: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    line = refused(
        tiny(tmp_path / "o", "--dataset", "camvid", "--data-root", tmp_path / "data", "--task", "segmentation")
    )
    assert "train" in line and str(tmp_path / "data") in line


def test_task_that_the_data_does_not_carry(tiny: Run, tmp_path: Path) -> None:
    line = refused(tiny(tmp_path / "o", "--dataset", "camvid", "--data-root", tmp_path, "--task", "pose"))
    assert "camvid" in line and "segmentation" in line


def test_weights_of_another_architecture(tiny: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"conv.weight": torch.zeros(3)}, path)
    assert "does not fit" in refused(tiny(tmp_path / "out", "--weights", path))


def test_weights_missing(tiny: Run, tmp_path: Path) -> None:
    assert "not found" in refused(tiny(tmp_path / "out", "--weights", tmp_path / "no.pt"))


def test_output_folder_is_a_file(tiny: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert "--out" in refused(tiny(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_cache_folder_is_a_file(fcbench: Run, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine")
    line = refused(
        fcbench(
            "run",
            "--n-train",
            8,
            "--n-test",
            4,
            "--cache-dir",
            tmp_path / "cache",
            "--weights",
            "random",
            "--out",
            tmp_path / "out",
        )
    )
    assert "--cache-dir" in line


def test_results_of_another_schema(tiny: Run, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    file = tmp_path / "out" / "rates.csv"
    file.write_text(file.read_text().replace("schema", "scheme", 1))
    before = file.read_bytes()
    assert "columns" in refused(tiny(tmp_path / "out"))
    assert file.read_bytes() == before


def test_damaged_results(tiny: Run, finished: Path, tmp_path: Path, fcbench: Run) -> None:
    shutil.copytree(finished, tmp_path / "out")
    file = tmp_path / "out" / "rates.csv"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\n1,", 3))
    assert "damaged" in refused(tiny(tmp_path / "out"))
    assert "damaged" in refused(fcbench("plot", tmp_path / "out", "-o", tmp_path / "a.png"))


def test_the_last_point_of_results_that_were_cut_off_is_measured_again(
    tiny: Run, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    file = tmp_path / "out" / "rates.csv"
    file.write_bytes(file.read_bytes()[:-40])
    result = tiny(tmp_path / "out", "--task", "segmentation", "--task", "captioning")
    assert result.exit_code == 0, result.output
    assert "measured 1 points; 25 were already in" in result.output


@pytest.mark.parametrize(
    "artefact",
    [
        "features/*/*/*.npy",
        "features/*/*/index.json",
        "features/*/stats.safetensors",
        "models/task-*.safetensors",
        "models/codec-*.safetensors",
        "models/scale-*.json",
        "models/encoder-*.json",
    ],
)
def test_a_flipped_bit_in_the_cache_changes_no_row(
    tiny: Run, cache: Path, of_depth: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, artefact: str
) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    damaged = sorted((tmp_path / "cache").glob(artefact))
    assert damaged
    for path in damaged:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data)
    result = tiny(tmp_path / "out", *OF_DEPTH, "--cache-dir", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    assert "is damaged: making it again" in caplog.text
    assert measured(tmp_path / "out") == measured(of_depth)


def test_a_codec_exchanged_in_the_cache_is_not_used(tiny: Run, cache: Path, of_depth: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    codecs = sorted((tmp_path / "cache" / "models").glob("codec-*.safetensors"))
    whole = {path: path.read_bytes() for path in codecs}
    for path, other in zip(codecs, codecs[1:] + codecs[:1]):
        put(path, whole[other])
    result = tiny(tmp_path / "out", *OF_DEPTH, "--cache-dir", tmp_path / "cache")
    assert result.exit_code == 1
    failed = table.load(tmp_path / "out").query("kind == 'coded'").status
    assert len(failed) == 5 and failed.str.contains(r"cached codec .* is .+, expected uniform.+: delete it").all()


def test_no_such_device(tiny: Run, tmp_path: Path) -> None:
    assert "--device cpu" in refused(tiny(tmp_path / "out", "--device", "quantum"))


def test_suite_without_suite(fcbench: Run, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("x = 1\n")
    assert "SUITE" in refused(fcbench("run", tmp_path / "s.py"))
    assert "not found" in refused(fcbench("run", tmp_path / "t.py"))


def test_plot_of_nothing(fcbench: Run, tmp_path: Path) -> None:
    assert "rates.csv" in refused(fcbench("plot", tmp_path, "-o", tmp_path / "a.png"))


def test_plot_of_unknown_kind(fcbench: Run, finished: Path, tmp_path: Path) -> None:
    assert ".svg" in refused(fcbench("plot", finished, "-o", tmp_path / "a.bmp"))


def test_every_verb_has_help_with_an_example(fcbench: Run) -> None:
    assert len(VERBS) > 9
    for verb in VERBS:
        result = fcbench(verb, "--help")
        assert result.exit_code == 0 and "Example" in result.output, verb


def test_every_column_is_explained(fcbench: Run) -> None:
    shown = fcbench("list", "columns").output.splitlines()
    assert [line.split()[0] for line in shown] == list(row.COLUMNS)
    assert all(c.text in line for c, line in zip(row.COLUMNS.values(), shown))
    assert "int or empty, since schema 3" in next(line for line in shown if line.startswith("codec_steps "))
    explained = json.loads(fcbench("list", "columns", "--json").output)
    assert explained["value"] == "value of the metric [float or empty]"


def test_list_and_doctor(fcbench: Run, tmp_path: Path) -> None:
    assert "mean-scale" in fcbench("list", "codecs").output.lower()
    result = fcbench("doctor", "--cache-dir", tmp_path)
    assert "torch" in result.output and "embedded" in result.output


def test_schema_is_the_one_written(finished: Path) -> None:
    assert set(table.load(finished).schema) == {row.SCHEMA}
