"""Train an embedded task model (encoder and decoder together) on scenes; resumable.

    python -m benchmarks.embedded.task_models TASK --work DIR

Trains on the split ``embedded``, whose scenes no benchmark run uses, and writes ``taskmodel_nano_TASK.safetensors``
with its training settings and two sets of test metrics: those of the written weights, and those with every feature map
replaced by the mean.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from fcbench.core import registry
from fcbench.core.samples import DataOptions, Dataset
from fcbench.core.tasks import Task, TaskModel
from fcbench.data.scenes import SIZE_PX
from fcbench.data.scenes.scene import VERSION
from fcbench.taskmodels.shared.nano import SPEC, NanoModel, NanoPlugin
from fcbench.training import loop
from fcbench.training.targets import Targets

TASKS = ("segmentation", "depth", "pose", "captioning")
N_TEST = 400


def images_of(data: Dataset, indices: list[int]) -> Tensor:
    """uint8 [B, 3, H, W]."""
    return torch.stack([data[i].image for i in indices])


def evaluate(model: TaskModel, task: Task, data: Dataset, n: int) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of a task model run on the images of n samples, and the same with its features replaced by their mean."""
    head: Any = model.head()
    parts = [list(range(i, min(i + 32, n))) for i in range(0, n, 32)]
    maps = [model.encoder(images_of(data, p), model.inputs).maps for p in parts]
    means = {k: torch.cat([m[k] for m in maps]).mean(0) for k in model.inputs}
    found = []
    for mean in (False, True):
        sums = np.zeros(task.n_statistics)
        for indices, features in zip(parts, maps):
            x: Any = {k: means[k].expand_as(v).contiguous() if mean else v for k, v in features.items()}
            batch = task.collate([data.targets(i) for i in indices])
            sums += task.statistics(head.predict(x, batch), batch).sum(0)
        found.append({k: round(float(v), 4) for k, v in task.values(sums).items()})
    return found[0], found[1]


def train(
    model: NanoModel, task: Task, data: Dataset, *, steps: int, batch: int, rate: float, seed: int, resume: Path
) -> float:
    """Train encoder and decoder with the task's loss; the encoder runs in bfloat16. Returns the validation loss."""
    losses: list[float] = []
    targets, (train_on, validation) = Targets(data, task.name), loop.held_out(len(data))

    def loss_at(indices: list[int]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            features = model.trunk(images_of(data, indices))
        head: Any = model.decoder.head
        loss: Tensor = head.loss(model.decoder(features.float()), task.collate(targets(indices)))
        return loss

    def loss_of(rng: np.random.Generator) -> Tensor:
        loss = loss_at(loop.sample_indices(rng, train_on, batch))
        losses.append(loss.item())
        return loss

    began = time.monotonic()

    def progress(step: int, steps: int) -> None:
        if step % 100 == 0 or step == steps:
            took = time.monotonic() - began
            mean = np.mean(losses[-100:])
            print(f"{task.name} {step}/{steps} loss {mean:.4f} {took:.0f} s", flush=True)

    def validate() -> tuple[float, float]:
        loss = float(loss_at(validation))
        return loss, abs(loss)

    record = loop.optimize(
        model, loss_of, validate, steps=steps, rate=rate, tolerance=0.0, seed=seed, resume=resume, advance=progress
    )
    return record.loss


def export(model: NanoModel, path: Path, about: dict[str, Any]) -> None:
    """Write encoder and decoder, fp16, with facts about them as JSON."""
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    save_file(state, path, metadata={k: json.dumps(v) for k, v in about.items()})
    path.chmod(0o644)


@click.command(help=__doc__)
@click.argument("name", metavar="TASK", type=click.Choice(TASKS))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of the scenes and checkpoints.")
@click.option("--n", default=8000, show_default=True, help="Training scenes.")
@click.option("--steps", default=3000, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--rate", default=2e-3, show_default=True, help="Peak learning rate.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
def main(name: str, work: Path, n: int, steps: int, batch: int, rate: float, seed: int, threads: int) -> None:
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    scenes: Any = registry.get("dataset", "scenes")  # its split "embedded" is only for these trainings
    data, test = (
        scenes.open(split, DataOptions(None, work, SIZE_PX, limit))
        for split, limit in (("embedded", n), ("test", N_TEST))
    )
    task = registry.get("task", name).build(data, test)
    plugin = registry.get("taskmodel", f"nano_{name}")
    assert isinstance(plugin, NanoPlugin)
    facts = plugin.facts(task)
    model, _ = plugin.make(facts, SIZE_PX)
    began = time.monotonic()
    final = train(model, task, data, steps=steps, batch=batch, rate=rate, seed=seed, resume=work / f"{plugin.name}.pt")
    about = {
        "facts": facts,
        "training": {
            "task": name,
            "data": f"scenes v{VERSION}, split embedded, {n} at {SIZE_PX[0]}x{SIZE_PX[1]}",
            "steps": steps,
            "batch": batch,
            "rate": rate,
            "seed": seed,
            "threads": threads,
            "final_loss": final,
            "seconds_since_resumed": round(time.monotonic() - began),
            "torch": torch.__version__,
            "utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    }
    export(model, plugin.path, about)
    built = plugin.build("", None, task, SIZE_PX, torch.device("cpu"))
    own, floor = evaluate(built, task, test, N_TEST)
    about["test"] = {"scenes": N_TEST, "own": own, "mean_features": floor}
    export(model, plugin.path, about)
    print(f"{plugin.path.name} {SPEC} {json.dumps(about['test'])}", flush=True)


if __name__ == "__main__":
    main()
