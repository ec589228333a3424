"""`benchmarks.specialization`: encoders that differ in their objective alone, after every length of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from points import end
from safetensors.torch import load_file

from benchmarks.embedded import train
from benchmarks.specialization import draw, encoders, records
from fcbench.analysis import situations
from fcbench.core.errors import FcbenchError
from fcbench.encoders.shared.nano import build_trunk
from fcbench.results.folder import ResultsFolder
from fcbench.results.samples import SampleTable


def seed_folder(path: Path, *names: str) -> Path:
    """A folder of a seed with empty files of weights."""
    path.mkdir()
    for name in names:
        (path / f"{name}.safetensors").touch()
    return path


def test_encoders_are_those_of_steps_that_every_objective_kept(tmp_path: Path) -> None:
    kept = [f"{o}-{n}" for o in ("attributes", "promptable", "both") for n in (250, 1000)]
    found = encoders(seed_folder(tmp_path / "seed3", "mae-100", *kept, "promptable-2000"))
    assert [(e.name, e.steps) for e in found[2:]] == [
        (n, k) for k in (250, 1000) for n in ("general", "special", "both")
    ]
    assert {e.seed for e in found} == {"seed3"}
    assert [e.label for e in found[:3]] == ["random-weights", "masked-autoencoder", "general-250"]
    assert found[0].weights == "random" and found[2].weights.endswith("attributes-250.safetensors")


def test_a_seed_without_a_common_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="seed0: no weights of mae, or no step at which"):
        encoders(seed_folder(tmp_path / "seed0", "mae-100", "attributes-250", "promptable-500", "both-250"))


def test_costs_are_between_encoders_of_as_many_steps(tmp_path: Path) -> None:
    kept = [f"{o}-{n}" for o in ("attributes", "promptable", "both") for n in (250, 500)]
    trained = encoders(seed_folder(tmp_path / "seed0", "mae-100", *kept))
    values = {e.label: 0.1 + 0.01 * i for i, e in enumerate(trained)}
    nats = {e.label: np.full(4, -90.0 + i) for i, e in enumerate(trained)}
    with ResultsFolder(tmp_path / "rows") as folder:
        for e in trained:
            row = end("ceiling", values[e.label], encoder=e.label, task="other", params="{}", bpp=16.0)
            samples = SampleTable(list("abcd"), [200] * 4, np.ones((4, 2)), nats[e.label], np.full(4, -95.0))
            folder.append([replace(row, point=e.label.replace("-", ""))], samples)
    rows = situations.load([tmp_path / "rows"])
    found = {f"{r['encoder']} {r['steps']}": r for r in records(rows, trained)}
    assert found["special 500"]["difference"] == pytest.approx(values["special-500"] - values["general-500"])
    assert found["both 250"]["difference"] == pytest.approx(values["both-250"] - values["general-250"])
    bits = (nats["special-250"] - nats["general-250"])[0] / np.log(2)
    assert found["special 250"]["information_bits"] == pytest.approx(bits)
    assert "difference" not in found["general 500"] and found["random weights 0"]["uncoded"] == 0.1
    figure = draw(pd.DataFrame(list(found.values())))
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["masked autoencoder", "random weights", "general", "special", "both"]


@pytest.mark.slow
def test_an_encoder_trained_in_two_parts_is_the_one_trained_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots at 2 and 4 steps: the second is the same whether the training stopped between them or not."""
    monkeypatch.setattr(train, "FIRST_SNAPSHOT", 2)

    def run(work: Path, stage: str, steps: int, *more: str) -> None:
        options = ["--work", str(work), "--scenes", "200", "--batch", "2", "--threads", "1", "--steps", str(steps)]
        done = CliRunner().invoke(train.main, [stage, *options, *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    for name, parts in (("parts", (2, 4)), ("once", (4,))):
        run(tmp_path / name, "mae", 1)
        for steps in parts:
            run(tmp_path / name, "both", steps, "--snapshots")
    in_parts, at_once = (load_file(tmp_path / name / "seed0" / "both-4.safetensors") for name in ("parts", "once"))
    assert all(torch.equal(in_parts[k], at_once[k]) for k in at_once)
    build_trunk().load_state_dict({k: v.float() for k, v in at_once.items()})
