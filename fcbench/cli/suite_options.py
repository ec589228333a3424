"""Options of verbs that measure a suite, and the suite and device made from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fcbench.cli.options import F, Size, by_task, cache_option, numbers
from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.measure.suite import BUDGETS, TASKS, Suite, default_tasks, load

_SOME = click.IntRange(min=1)
_THREADS = click.IntRange(1, 4 * (os.cpu_count() or 1))
_SUITE_FILE = click.argument("suite_file", metavar="[SUITE.py]", required=False, type=click.Path(path_type=Path))
_OPTIONS: dict[str, dict[str, Any]] = {
    "--encoder encoders": {
        "multiple": True,
        "metavar": "NAME[:VARIANT]",
        "help": "Repeatable; like every plug-in, a name from `fcbench list` or a file FILE.py. [hiera_nano, sam2_nano]",
    },
    "--codec codecs": {"multiple": True, "metavar": "NAME|FILE.py", "help": "Repeatable. [uniform, hyperprior]"},
    "--task tasks": {
        "multiple": True,
        "metavar": "NAME|FILE.py",
        "help": f"Repeatable. [{', '.join(TASKS)}; those that the data set has]",
    },
    "--dataset": {"metavar": "NAME|FILE.py", "help": "Data set; hf:FOLDER or hf:NAME@COMMIT. [scenes]"},
    "--data-root": {"type": click.Path(path_type=Path), "help": "Folder of a data set that is read from disk."},
    "--features": {
        "metavar": "FOLDER",
        "type": click.Path(path_type=Path),
        "help": "Features that somebody else extracted, with manifest.json (fcbench/core/manifest.py), in place of a "
        "data set, an encoder, a neck and a head.",
    },
    "--metric-command": {
        "metavar": "COMMAND",
        "help": "With --features: run on a folder of decoded features, its last argument; prints the metric.",
    },
    "--codec-data": {
        "metavar": "DATASET:ROOT",
        "help": "Train the codecs before a tail on these images, whose labels are not used. [the training split]",
    },
    "--split-point": {
        "metavar": "NAME",
        "help": "Split point or group, or several: stage3, fpn, stage2+stage3. [the encoder's default]",
    },
    "--neck": {"metavar": "NAME|FILE.py", "help": "Neck before each head. [neck_2L]"},
    "--head": {
        "type": click.Choice(["trained", "frozen", "tail"]),
        "help": "Trained with the neck; the frozen decoder of a task model; or the tail, the rest of the encoder's own "
        "network, without a neck or any training. [trained]",
    },
    "--neck-loss": {
        "type": click.Choice(["task", "distill", "both"]),
        "help": "What trains the neck before a frozen decoder: the task, the task model's own features, both. [task]",
    },
    "--task-model task_models": {
        "multiple": True,
        "metavar": "TASK=NAME[:VARIANT]",
        "help": "Task model whose decoder is used, repeatable; see `fcbench list taskmodels`. [the data set's default]",
    },
    "--task-weights": {
        "multiple": True,
        "metavar": "TASK=random|FILE",
        "help": "Weights of a task model, repeatable. [its own: official or embedded]",
    },
    "--objective": {
        "type": click.Choice(["mse", "levels", "task", "both"]),
        "help": "What learned codecs preserve: features, features with each level weighted for the task, the task's "
        "loss, features and loss. [mse]",
    },
    "--lambdas": {"metavar": "L1,L2,...", "help": "lmbda of every learned codec. [each codec's default sweep]"},
    "--image-size": {"type": Size(), "help": "Resize images and targets to this. [the data set's own]"},
    "--weights": {"metavar": "random|FILE", "help": "Weights of the encoder. [its own: official or embedded]"},
    "--encoder-dtype": {
        "type": click.Choice(["float32", "bfloat16"]),
        "help": "Arithmetic of every encoder; in bfloat16 its name ends in @bfloat16. [float32]",
    },
    "--neck-dtype": {
        "type": click.Choice(["float32", "bfloat16"]),
        "help": "Arithmetic of the neck, with the same suffix; heads, losses and codecs stay float32. [float32]",
    },
    "--compile compiled": {
        "is_flag": True,
        "help": "Compile encoders and necks by torch.compile; their names end in @compiled. It needs a C++ compiler.",
    },
    "--features-dtype": {
        "type": click.Choice(["float32", "float16"]),
        "help": "Type of stored features, used for all training and measuring. [float32]",
    },
    "--no-store": {
        "is_flag": True,
        "help": "Do not store features; the encoder runs in every training step. For data too large for the disk.",
    },
    "--seeds": {"metavar": "S1,S2,...", "help": "Seeds of readouts and codecs. [0]"},
    "--n-train": {"type": _SOME, "help": "Use at most this many training samples."},
    "--n-test": {"type": _SOME, "help": "Use at most this many test samples."},
    "--budget": {
        "type": click.Choice(BUDGETS),
        "help": "Limit of training steps: to try out, to work with, or to quote. [demo]",
    },
    "--task-steps": {"type": _SOME, "help": "Training steps of neck and head at most. [those of --budget]"},
    "--codec-steps": {"type": _SOME, "help": "Training steps of a codec at most. [those of --budget]"},
    "--batch": {"type": _SOME, "help": "Samples per training step."},
    "--on-bad-image": {
        "type": click.Choice(["stop", "skip"]),
        "help": "Stop at an unreadable image, or leave it out. [stop]",
    },
    "--quick": {"is_flag": True, "help": "A one-minute run to check that everything works; not to be quoted."},
}
_MACHINE: dict[str, dict[str, Any]] = {
    "--device": {
        "default": "auto",
        "metavar": "NAME",
        "show_default": True,
        "help": "cpu, cuda, cuda:1, mps; auto takes a GPU if there is one.",
    },
    "--threads": {"type": _THREADS, "help": "CPU threads, at most four per core. [all cores]"},
    "--coding-workers": {
        "type": _THREADS,
        "default": 1,
        "show_default": True,
        "help": "Processes that code samples, at most four per core; bytes do not depend on it.",
    },
}


def suite_options(**helps: str | None) -> Callable[[F], F]:
    """``[SUITE.py]`` and all options that `suite_of` reads.

    Args:
        helps: help texts of this verb, by parameter; None leaves the option, or ``suite_file``, out.
    """

    def decorate(function: F) -> F:
        for names, settings in reversed(_OPTIONS.items()):
            flag, _, parameter = names.partition(" ")
            parameter = parameter or flag.strip("-").replace("-", "_")
            text = helps.get(parameter, settings["help"])
            if text is not None:
                with_help = {**settings, "help": text}
                function = click.option(flag, parameter, **with_help)(function)
        return function if helps.get("suite_file", "") is None else _SUITE_FILE(function)

    return decorate


def machine_options(out: str, coding: bool = True) -> Callable[[F], F]:
    """Options for where a verb writes and computes: ``--out`` with its default, ``--device``, ``--threads`` etc.

    Args:
        coding: whether the verb codes samples.
    """

    def decorate(function: F) -> F:
        function = cache_option(function)
        for flag, settings in reversed(_MACHINE.items()):
            if flag == "--coding-workers" and not coding:
                continue
            function = click.option(flag, **settings)(function)
        return click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=Path(out),
            show_default=True,
            help="Results folder; a run resumes in it.",
        )(function)

    return decorate


def _of_features(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What ``--features`` stands for. Raises `FcbenchError`: an option that does not go with it."""
    fixed = {"dataset": "extracted", "data_root": folder, "encoders": ("extracted",), "weights": str(folder)}
    fixed |= {"tasks": ("features",), "head": "tail"}
    for name in (
        *fixed,
        "neck",
        "split_point",
        "codec_data",
        "image_size",
        "encoder_dtype",
        "neck_dtype",
        "compiled",
        "objective",
    ):
        if options.get(name):
            option = "--" + {"encoders": "encoder", "tasks": "task", "compiled": "compile"}.get(name, name)
            raise FcbenchError(f"{option.replace('_', '-')} does not go with --features: a folder of features has none")
    return fixed


def suite_of(suite_file: Path | None, options: dict[str, Any]) -> Suite:
    """The suite of a file or the default, changed by the given options, with its plug-in files in use."""
    suite = load(suite_file) if suite_file else Suite()
    fields = {k: v for k, v in options.items() if v is not None and v != () and v is not False}
    steps = {f"{k}_steps": fields.pop(f"{k}_steps") for k in ("task", "codec") if f"{k}_steps" in fields}
    if fields.pop("quick", False):
        if "budget" in fields:
            raise FcbenchError("got both --quick and --budget; give one of them.")
        suite = suite.quick()
    if fields.pop("no_store", False):
        fields["store_features"] = False
    if "budget" in fields:
        suite = suite.at(fields.pop("budget"))
    if "batch" in fields:
        batch = fields.pop("batch")
        steps |= {"task_batch": batch, "codec_batch": batch}
    dtypes = {kind: fields.pop(f"{kind}_dtype", None) == "bfloat16" for kind in ("encoder", "neck")}
    compiled = fields.pop("compiled", False)
    lambdas = numbers(fields.pop("lambdas"), float, "--lambdas") if "lambdas" in fields else ()
    for name, option in (("task_models", "--task-model"), ("task_weights", "--task-weights")):
        if name in fields:
            fields[name] = by_task(fields[name], option)
    if "seeds" in fields:
        fields["seeds"] = numbers(fields["seeds"], int, "--seeds")
    if "features" in fields:
        fields |= _of_features(fields.pop("features"), options)
    if "codec_data" in fields:
        fields["codec_data"], root = registry.split_root(fields["codec_data"])
        fields["codec_data_root"] = Path(root) if root else None
    if "image_size" in fields:
        fields["image_size_px"] = fields.pop("image_size")
    suite = replace(suite, **fields, budget=replace(suite.budget, **steps)).with_files()
    if not suite_file and "tasks" not in fields:
        suite = replace(suite, tasks=default_tasks(suite.dataset))
    encoders = tuple(registry.computed(e, dtypes["encoder"], compiled) for e in suite.encoders)
    suite = replace(suite, encoders=encoders, neck=registry.computed(suite.neck, dtypes["neck"], compiled))
    if lambdas:
        learned = [c for c in suite.codecs if c in registry.names("codec") and registry.get("codec", c).trained]
        if not learned:
            raise FcbenchError(f"--lambdas is for learned codecs, got none: {', '.join(suite.codecs)}")
        suite = replace(suite, params={**suite.params, **{c: tuple({"lmbda": v} for v in lambdas) for c in learned}})
    return suite
