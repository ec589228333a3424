"""From the options of a verb to the suite and the device it runs on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fcbench import registry
from fcbench.suite import QUICK, Suite, load
from fcbench.types import FcbenchError
from fcbench.verbs._options import by_task, numbers


def suite_of(suite_file: Path | None, options: dict[str, Any]) -> Suite:
    """The suite of a file or the default, changed by the options that were given."""
    suite = load(suite_file) if suite_file else Suite()
    given = {
        k: v for k, v in options.items() if v is not None and v != () and v is not False
    }
    steps = {
        f"{k}_steps": given.pop(f"{k}_steps")
        for k in ("task", "codec")
        if f"{k}_steps" in given
    }
    if given.pop("quick", False):
        suite = replace(
            suite,
            name=f"{suite.name}-quick",
            budget=QUICK,
            n_train=suite.n_train or 300,
            n_test=suite.n_test or 40,
        )
    if "batch" in given:
        batch = given.pop("batch")
        steps |= {"task_batch": batch, "codec_batch": batch}
    if "lambdas" in given:
        values = numbers(given.pop("lambdas"), float, "--lambdas")
        codecs = given.get("codecs", suite.codecs)
        learned = [
            c
            for c in codecs
            if c in registry.names("codec") and registry.get("codec", c).trained
        ]
        suite = replace(
            suite,
            params={
                **suite.params,
                **{c: tuple({"lmbda": v} for v in values) for c in learned},
            },
        )
    for name, option in (
        ("task_models", "--task-model"),
        ("task_weights", "--task-weights"),
    ):
        if name in given:
            given[name] = by_task(given[name], option)
    if "seeds" in given:
        given["seeds"] = numbers(given["seeds"], int, "--seeds")
    if "image_size" in given:
        given["image_size_px"] = given.pop("image_size")
    return replace(suite, **given, budget=replace(suite.budget, **steps))


def device_of(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise FcbenchError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}): try --device cpu"
        ) from error
