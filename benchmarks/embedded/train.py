"""Train an embedded encoder, stage by stage; resumable at every checkpoint.

python -m benchmarks.embedded.train mae --work DIR
python -m benchmarks.embedded.train attributes --work DIR     # needs mae; writes hiera_nano.safetensors
python -m benchmarks.embedded.train promptable --work DIR     # needs mae; writes sam2_nano.safetensors
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
from torch import nn

from benchmarks.embedded import scenes_cache, stages
from fcbench.data.scenes.scene import VERSION

WEIGHTS = Path(__file__).resolve().parents[2] / "fcbench" / "weights"
NAMES = {"attributes": "hiera_nano", "promptable": "sam2_nano"}


def schedule(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 3 percent of the steps, cosine to zero."""
    warm = max(1, steps * 3 // 100)
    return peak * min(step / warm, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def save_atomic(state: dict, path: Path) -> None:
    """Write a torch file so that a killed run leaves the old one."""
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def export(model: nn.Module, stage: str, facts: dict[str, object]) -> Path:
    """Write the trunk's weights, fp16, with facts about their training as JSON."""
    path = WEIGHTS / f"{NAMES[stage]}.safetensors"
    trunk = {k: v.half().contiguous() for k, v in model.trunk.state_dict().items()}  # type: ignore[union-attr]
    save_file(trunk, path, metadata={"training": json.dumps(facts)})
    return path


@click.command(help=__doc__)
@click.argument("stage", type=click.Choice(["mae", "attributes", "promptable"]))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of the scenes and checkpoints.")
@click.option("--scenes", "n_scenes", default=24000, show_default=True)
@click.option("--steps", default=2000, show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--rate", default=1e-3, show_default=True, help="Peak learning rate.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=0, help="CPU threads; 0 for all.")
def main(stage: str, work: Path, n_scenes: int, steps: int, batch: int, rate: float, seed: int, threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    scenes = scenes_cache.load(work / "scenes", n_scenes)
    model: nn.Module
    if stage == "mae":
        model = stages.MaskedAutoencoder()
    else:
        model = stages.Attributes(scenes.sizes) if stage == "attributes" else stages.Promptable()
        start = torch.load(work / "mae.pt", weights_only=True)["model"]
        for part in ("trunk", "fuse"):
            if not hasattr(model, part):
                continue
            state = {k[len(part) + 1 :]: v for k, v in start.items() if k.startswith(part + ".")}
            getattr(model, part).load_state_dict(state)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.95))
    path, step, seconds = work / f"{stage}.pt", 0, 0.0
    history: list[dict[str, float]] = []
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds, history = state["step"], state["seconds"], state["history"]
        print(f"resumed at step {step}")
    history.append({"from": step, "to": steps, "batch": batch, "rate": rate})
    began, losses = time.monotonic(), []
    while step < steps:
        rng = np.random.default_rng((seed, step))
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, rate)
        loss = model.loss(scenes, np.sort(rng.choice(n_scenes, batch, replace=False)), rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        step += 1
        if step % 100 == 0 or step == steps:
            took = seconds + time.monotonic() - began
            print(f"{stage} {step}/{steps} loss {np.mean(losses[-100:]):.4f} {took:.0f} s", flush=True)
            save_atomic(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "seconds": took,
                    "history": history,
                },
                path,
            )
    if stage in NAMES:
        took = torch.load(path, weights_only=True)["seconds"]
        start = torch.load(work / "mae.pt", weights_only=True)
        mae = {k: start[k] for k in ("step", "seconds", "history")}
        facts = {
            "stage": stage,
            "from": "mae",
            "data": f"scenes v{VERSION}, split embedded, {n_scenes} at 128x128",
            "history": history,
            "seed": seed,
            "seconds": round(took),
            "mae": mae,
            "final_loss": float(np.mean(losses[-100:])) if losses else None,
            "torch": torch.__version__,
            "utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        print(export(model, stage, facts))


if __name__ == "__main__":
    main()
