"""A suite says at once what is wrong with it: every field is checked when it is built, names and knobs by `check`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcbench.cli.suite_options import suite_of
from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.rules import shown
from fcbench.measure.suite import Suite, load
from fcbench.training.options import LEVELS, Budget

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seeds": -1}, "seeds must be a whole number from 0 to 4294967295, got -1"),
        ({"seeds": (0, 10**30)}, "got 1000000000000000000000000000000"),
        ({"seeds": 10**5000}, "seeds must be a whole number"),
        ({"seeds": ()}, "seeds must hold at least one value, got none"),
        ({"seeds": (1, 2, 1)}, "seeds: 1 is named twice"),
        ({"seeds": 0.5}, "got 0.5"),
        ({"n_train": 0}, "n_train must be a whole number from 1 to 10000000, got 0"),
        ({"n_test": 10**9}, "n_test must be"),
        ({"n_test": True}, "n_test must be a whole number from 1 to 10000000, got True"),
        ({"image_size_px": (0, 64)}, "image_size_px must be a whole number from 1"),
        ({"image_size_px": (10**5, 10**5)}, "image_size_px must be height and width of at most 67108864 pixels"),
        ({"image_size_px": 64}, "2 values, each a whole number"),
        ({"image_size_px": (64, 64, 3)}, "2 values"),
        ({"codecs": []}, "codecs must hold at least one value"),
        ({"codecs": None}, "codecs must be text, got None"),
        ({"codecs": ("uniform", 3)}, "codecs must be text, got 3"),
        ({"tasks": ("depth", "depth")}, "tasks: 'depth' is named twice"),
        ({"dataset": ""}, "dataset must be text, got ''"),
        ({"name": "a\x1b[31m"}, r"name must be text, got 'a\x1b[31m'"),
        ({"data_root": "a\0"}, "data_root must be a path"),
        ({"head": "forzen"}, "head must be 'trained' or 'frozen' or 'tail', got 'forzen'. Did you mean 'frozen'?"),
        (
            {"objective": "tsk"},
            "objective must be 'mse' or 'levels' or 'task' or 'both', got 'tsk'. Did you mean 'task'?",
        ),
        ({"on_bad_image": []}, "on_bad_image must be 'stop' or 'skip', got []"),
        ({"null_model": "no"}, "null_model must be True or False, got 'no'"),
        ({"budget": 400}, "budget must be a Budget, got 400"),
        ({"task_models": ["depth"]}, "task_models must be a dictionary, text: text"),
        (
            {"params": {"uniform": ({"bits": None},)}},
            "params['uniform']['bits'] must be a finite number or text, got None",
        ),
        ({"params": {"uniform": ({"bits": NAN},)}}, "got nan"),
        ({"params": {"uniform": ()}}, "params['uniform'] must hold at least one value"),
        ({"params": {"uniform": ({"bits": 4}, {"bits": 4})}}, "params['uniform']: {'bits': 4} is named twice"),
        ({"params": {"uniform": 4}}, "params['uniform'] must be a dictionary"),
    ],
)
def test_what_a_suite_cannot_be_is_refused_when_it_is_built(given: dict[str, Any], words: str) -> None:
    with pytest.raises(FcbenchError) as caught:
        Suite(**given)
    assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 250
    with pytest.raises(FcbenchError):
        replace(Suite(), **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task_stps": 3}, "unknown field of Budget 'task_stps'. Did you mean 'task_steps'?"),
        ({"task_steps": 0}, "task_steps must be a whole number from 1 to 10000000, got 0"),
        ({"codec_steps": 2.5}, "codec_steps must be a whole number"),
        ({"task_batch": -4}, "task_batch"),
        ({"codec_batch": 10**9}, "codec_batch"),
        ({"task_rate": NAN}, "task_rate must be a finite number from 1e-09 to 10, got nan"),
        ({"codec_rate": INF}, "codec_rate"),
        ({"codec_rate": 0}, "codec_rate"),
        ({"width": "128"}, "width must be a whole number from 1 to 4096, got '128'"),
    ],
)
def test_what_a_budget_cannot_be_is_refused_when_it_is_built(given: dict[str, Any], words: str) -> None:
    with pytest.raises(FcbenchError) as caught:
        Budget(**given)
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", [Suite, Budget])
def test_every_field_has_a_rule(kind: Callable[..., Any]) -> None:
    class Stranger:
        """A value of no field."""

    for field in fields(kind()):
        with pytest.raises(FcbenchError, match=f"^{field.name} must be .*, got <"):
            kind(**{field.name: Stranger()})


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"unifrom": ({"bits": 4},)}, "Did you mean 'uniform'"),
        ({"uniform": ({"bots": 4},)}, "codec 'uniform' has the parameters bits; got bots. Did you mean 'bits'?"),
        (
            {"hyperprior": ({"lmda": 0.3},)},
            "codec 'hyperprior' has the parameters lmbda; got lmda. Did you mean 'lmbda'?",
        ),
        ({"image:jpeg": ({"qualty": 3},)}, "got qualty. Did you mean 'quality'?"),
        ({"hyperprior": ({},)}, "codec 'hyperprior' has the parameters lmbda; got none"),
        ({"uniform": ({"bits": 4, "more": 1},)}, "got bits, more"),
        ({"uniform": ({"bits": 99},)}, "params['uniform']: parameter bits must be a number from 2 to 8, got 99"),
        ({"uniform": ({"bits": 10**400},)}, "parameter bits must be"),
        ({"hyperprior": ({"lmbda": -1},)}, "parameter lmbda must be"),
        ({"hyperprior": ({"lmbda": "much"},)}, "got 'much'"),
        ({"hevc": ({"qp": 22, "bits": 9},)}, "pictures of"),
        ({"raw": ({"dtype": "fp8"},)}, "takes dtype"),
        ({"image:jpeg": ({"quality": 101},)}, "params['image:jpeg']: parameter quality"),
        ({"label": ({"bits": 4},)}, "have no parameters"),
    ],
)
def test_knobs_are_checked_before_any_work(params: Any, words: str) -> None:
    with pytest.raises(FcbenchError) as caught:
        Suite(params=params).check()
    assert words in str(caught.value)


@pytest.mark.parametrize(("given", "near"), [("codec", "codecs"), ("split", "split_point"), ("data_rot", "data_root")])
def test_a_name_of_no_field_is_refused_with_the_nearest(given: str, near: str) -> None:
    options: dict[str, Any] = {given: "x", "codecs": ()}
    for make in (Suite, lambda **options: replace(Suite(), **options)):
        with pytest.raises(FcbenchError, match=f"^unknown field of Suite '{given}'. Did you mean '{near}'"):
            make(**options)


@pytest.mark.parametrize("field", ["task_models", "task_weights"])
def test_models_and_weights_are_of_tasks_of_the_run(field: str) -> None:
    with pytest.raises(FcbenchError, match="unknown task of the run 'dept'. Did you mean 'depth'"):
        options: dict[str, Any] = {field: {"dept": "random"}}
        Suite(head="frozen", **options).check()


def test_one_value_and_a_list_stand_for_several() -> None:
    suite = Suite(codecs="uniform", seeds=[0, 1], data_root="here", params={"uniform": {"bits": 4}})  # type: ignore
    assert suite.codecs == ("uniform",) and suite.seeds == (0, 1) and suite.data_root == Path("here")
    assert suite.params == {"uniform": ({"bits": 4},)}
    suite.check()


def test_numbers_of_numpy_become_plain_ones() -> None:
    params = {"hyperprior": ({"lmbda": np.float32(0.5)},)}
    suite = Suite(seeds=tuple(np.arange(2)), n_test=np.int64(3), params=params)  # type: ignore
    plain = (*suite.seeds, suite.n_test, suite.params["hyperprior"][0]["lmbda"])
    assert plain == (0, 1, 3, 0.5) and [type(v) for v in plain] == [int, int, int, float]


def test_values_are_shown_in_one_short_line() -> None:
    class Loud:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert shown("a\nb" * 50).count("\n") == 0 and len(shown("a" * 1000)) == 60
    assert shown(Loud()) == "an object of type Loud" and shown(10**5000) == "an object of type int"


# ------------------------------------------------------------------------------------------------ suite files
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"x = 1\nSUITE = (\n", r"SyntaxError: .* \(line 2\)$"),
        (b"x = 1\nimport no_such_module\n", r"ModuleNotFoundError: No module named 'no_such_module' \(line 2\)$"),
        (
            b"import fcbench\n\nSUITE = fcbench.Suite(codec='uniform')\n",
            r"unknown field of Suite 'codec'. Did you mean 'codecs'\?.* \(line 3\)$",
        ),
        (b"import fcbench\nSUITE = fcbench.Suite(seeds=-1)\n", r"cannot load .*: seeds must be .*, got -1 \(line 2\)$"),
        (b"x = 1\ny = '\0'\n", r"null bytes \(line 2\)$"),
        (b"x = 1\n\ny = '\xff'\n", r"\(line 3\)$"),
        (b"SUITE = 3\n", r"sets SUITE = 3: it must hold SUITE = fcbench.Suite"),
        (b"", r"sets no SUITE"),
        (b"def fail():\n    raise RuntimeError('first\\nsecond')\nfail()\n", r"RuntimeError: first \(line 2\)$"),
        (b"raise RuntimeError\n", r"RuntimeError \(line 1\)$"),
        (b"import sys\nsys.exit(0)\n", r"SystemExit: 0 \(line 2\)$"),
        (b"SUITE = " + b"(" * 300 + b")" * 300, r"cannot load the suite"),
    ],
)
def test_a_suite_file_that_cannot_be_used_names_file_and_line(tmp_path: Path, source: bytes, words: str) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(source)
    with pytest.raises(FcbenchError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_suite_file_is_a_regular_file(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="not found"):
        load(tmp_path / "none.py")
    with pytest.raises(FcbenchError, match="is a directory"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(FcbenchError, match="not a regular file"):
        load(tmp_path / "pipe.py")
    with pytest.raises(FcbenchError, match="not a regular file"):
        registry.use("codec", str(tmp_path / "pipe.py"))


def test_an_edited_suite_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for n in (1, 2):
        path.write_text(f"import fcbench\nSUITE = fcbench.Suite(n_test={n})\n")
        assert load(path).n_test == n == load(path).n_test


def test_a_budget_sets_steps_and_tolerance_and_leaves_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import fcbench\nSUITE = fcbench.Suite(budget=fcbench.Budget(codec_batch=7, codec_steps=3))\n")
    full = suite_of(file, {"budget": "full"}).budget
    assert full.codec_batch == 7 and full.codec_steps == LEVELS["full"]["codec_steps"] > 3
    capped = suite_of(None, {"budget": "full", "codec_steps": 900}).budget
    assert (capped.codec_steps, capped.task_steps) == (900, LEVELS["full"]["task_steps"])
    assert Suite().budget == Suite().at("demo").budget, "the default is the demo"
    with pytest.raises(FcbenchError, match="--quick and --budget"):
        suite_of(None, {"budget": "full", "quick": True})


def test_a_record_of_a_suite_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    suite = Suite(weights=str(tmp_path / "w.safetensors"), task_weights={"depth": str(tmp_path / "d.safetensors")})
    record = json.dumps(replace(suite, data_root=tmp_path, codec_data_root=tmp_path).as_json())
    assert str(tmp_path) not in record and '"w.safetensors"' in record and '"d.safetensors"' in record
    assert Suite(weights="random").as_json()["weights"] == "random" and Suite().as_json()["weights"] is None


def test_a_run_that_names_no_task_takes_those_of_its_data_set(tmp_path: Path) -> None:
    assert suite_of(None, {"dataset": "camvid"}).tasks == ("segmentation",)
    assert suite_of(None, {"dataset": "imagenet1k", "tasks": ()}).tasks == ("classification",)
    assert suite_of(None, {"dataset": "camvid", "tasks": ("depth",)}).tasks == ("depth",), "refused later, by name"
    (tmp_path / "suite.py").write_text("import fcbench\nSUITE = fcbench.Suite(tasks='pose')\n")
    assert suite_of(tmp_path / "suite.py", {"dataset": "camvid"}).tasks == ("pose",), "a suite names its tasks"
    with pytest.raises(FcbenchError, match="unknown dataset 'camvit'.*camvid"):
        suite_of(None, {"dataset": "camvit"})
