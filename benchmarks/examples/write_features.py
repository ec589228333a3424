"""Features of a model that fcbench does not know, for ``fcbench run --features FOLDER``: the folder, in ten lines.

python benchmarks/examples/write_features.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np

folder, rng, samples = Path(sys.argv[1]), np.random.default_rng(0), []
folder.mkdir(parents=True, exist_ok=True)
for i in range(100):
    tokens = rng.normal(size=(1 + 4 * 4, 8)).astype(np.float32)  # a class token and a grid of 4 x 4, of 8 channels
    tokens[0] += i % 2  # the class
    np.save(folder / f"{i}.npy", tokens)
    samples.append({"id": str(i), "split": "train" if i < 60 else "test", "size_px": [64, 64]})
maps = {"last": {"layout": "NC", "file": "{id}.npy", "grid": [4, 4], "global_tokens": 1}}
(folder / "manifest.json").write_text(json.dumps({"name": "toy", "maps": maps, "samples": samples}))
