"""Train an embedded encoder, stage by stage; resumable at every checkpoint.

python -m benchmarks.embedded.train mae --work DIR
python -m benchmarks.embedded.train attributes --work DIR     # needs mae; the training of hiera_nano
python -m benchmarks.embedded.train promptable --work DIR     # needs mae; the training of sam2_nano
python -m benchmarks.embedded.train both --work DIR           # needs mae; both objectives at once

All write the trunk's weights into DIR/seedN, for `--weights FILE` of `fcbench run`.
"""

from __future__ import annotations

import json
import math
import os
import time
from datetime import datetime, timezone
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.embedded import scenes_cache, stages
from fcbench.data.scenes.scene import VERSION
from fcbench.training.loop import AVERAGED

STAGES = ("mae", "attributes", "promptable", "both")
FIRST_SNAPSHOT = 250


def schedule(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 3 percent of the steps, cosine to zero."""
    warm = max(1, steps * 3 // 100)
    return peak * min(step / warm, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def level(step: int, peak: float) -> float:
    """Linear warm-up until a third of the first snapshot, then constant."""
    return peak * min(1.0, 3 * step / FIRST_SNAPSHOT)


def is_snapshot(step: int) -> bool:
    """Whether a step is 250, 500, 1000, 2000, ...

    >>> [s for s in range(1, 5000) if is_snapshot(s)]
    [250, 500, 1000, 2000, 4000]
    """
    doublings, rest = divmod(step, FIRST_SNAPSHOT)
    return rest == 0 and doublings > 0 and doublings & (doublings - 1) == 0


def build(stage: str, sizes: tuple[int, ...]) -> nn.Module:
    """A stage's module, untrained."""
    if stage == "mae":
        return stages.MaskedAutoencoder()
    if stage == "promptable":
        return stages.Promptable()
    return stages.Attributes(sizes) if stage == "attributes" else stages.Both(sizes)


def start_from(model: nn.Module, mae: dict[str, Tensor]) -> None:
    """Take the trunk, and the fusion of its last stages where a stage has one, from a masked autoencoder."""
    for part in ("trunk", "fuse"):
        if hasattr(model, part):
            state = {k[len(part) + 1 :]: v for k, v in mae.items() if k.startswith(part + ".")}
            getattr(model, part).load_state_dict(state)


def save_atomic(state: dict, path: Path) -> None:
    """Write a torch file so that a killed run leaves the old one."""
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def export(trunk: dict[str, Tensor], path: Path, facts: dict[str, object]) -> None:
    """Write a trunk's weights, fp16, with facts about their training as JSON."""
    weights = {k: v.half().contiguous() for k, v in trunk.items()}
    save_file(weights, path, metadata={"training": json.dumps(facts)})
    print(path, flush=True)


@click.command(help=__doc__)
@click.argument("stage", type=click.Choice(STAGES))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of the scenes and checkpoints.")
@click.option("--scenes", "n_scenes", default=24000, show_default=True)
@click.option("--steps", default=2000, show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--rate", default=1e-3, show_default=True, help="Peak learning rate.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=0, help="CPU threads; 0 for all.")
@click.option(
    "--snapshots",
    is_flag=True,
    help="Keep the peak rate after the warm-up, and write the trunk's averaged weights after 250, 500, 1000, 2000, ... "
    "steps: each is a training of that length, and more --steps later go on from there.",
)
def main(
    stage: str,
    work: Path,
    n_scenes: int,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    threads: int,
    snapshots: bool,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    scenes = scenes_cache.load(work / "scenes", n_scenes)
    folder = work / f"seed{seed}"
    folder.mkdir(exist_ok=True)
    model = build(stage, scenes.sizes)
    facts: dict[str, object] = {
        "stage": stage,
        "data": f"scenes v{VERSION}, split embedded, {n_scenes} at 128x128",
        "schedule": "constant, averaged" if snapshots else "cosine",
        "seed": seed,
        "torch": torch.__version__,
    }
    if stage != "mae":
        start = torch.load(folder / "mae.pt", weights_only=True)
        start_from(model, start["model"])
        facts |= {"from": "mae", "mae": {k: start[k] for k in ("step", "seconds", "history")}}
    trunk: nn.Module = model.trunk  # type: ignore[assignment]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.95))
    average = {k: v.clone() for k, v in trunk.state_dict().items()}
    path, step, seconds = folder / f"{stage}.pt", 0, 0.0
    history: list[dict[str, float]] = []
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds, history, average = (state[k] for k in ("step", "seconds", "history", "average"))
        print(f"resumed at step {step}")
    history.append({"from": step, "to": steps, "batch": batch, "rate": rate})
    began, losses = time.monotonic(), []
    while step < steps:
        rng = np.random.default_rng((seed, step))
        for group in optimizer.param_groups:
            group["lr"] = level(step, rate) if snapshots else schedule(step, steps, rate)
        loss = model.loss(scenes, np.sort(rng.choice(n_scenes, batch, replace=False)), rng)  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        step += 1
        torch._foreach_lerp_(list(average.values()), list(trunk.state_dict().values()), min(1.0, AVERAGED / step))
        last = step == steps
        if step % 100 and not last and not is_snapshot(step):
            continue
        took, recent = seconds + time.monotonic() - began, float(np.mean(losses[-100:]))
        print(f"{stage} {step}/{steps} loss {recent:.4f} {took:.0f} s", flush=True)
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
        save_atomic(parts | {"step": step, "seconds": took, "history": history}, path)
        if is_snapshot(step) if snapshots else last:
            now = {"history": history, "step": step, "seconds": round(took), "loss": recent}
            now["utc"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
            weights = average if snapshots else trunk.state_dict()
            export(weights, folder / f"{stage}-{step}.safetensors", facts | now)


if __name__ == "__main__":
    main()
