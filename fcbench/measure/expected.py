"""Expected time of each node of a graph: sizes times rates measured on two CPU cores.

A guess until the first node of a kind is done; `fcbench.core.progress.Eta` then corrects it. `fcbench run --plan`
instead times the parts of the run, which takes a minute.
"""

from __future__ import annotations

import math

from fcbench.core.codecs import Kind
from fcbench.core.progress import Work
from fcbench.features.source import Source
from fcbench.measure.graph import Graph, Makes, Node
from fcbench.measure.points import lmbdas_of
from fcbench.measure.study import Study
from fcbench.training.codec import n_steps

IMAGE_S = 1.5e-7
"""Seconds per pixel of an image, for encoding it or sending it through an image coder."""
READOUT_S = 3e-5
"""Seconds per cell of a sample's grid in a training step of neck and head."""
CONSTANT = 0.45
"""Time of a training step on a constant, relative to one on features."""
CODEC_S = 3.5e-7
"""Seconds per scalar of a sample's features in a training step of a codec."""
TABLES_S = 0.05
"""Seconds for building a codec's tables, trained or not."""
CODE_S = 8e-7
"""Seconds per scalar for encoding and decoding with a codec."""
READ_S = 1e-3
"""Seconds per sample for evaluating a task."""
ROW_S = 0.045
"""Seconds per point for intervals and rows, by task."""
ANY = "any but features"
"""Pool of all work without an encoder: it shows how fast the machine is."""


def works(graph: Graph, study: Study) -> dict[str, Work]:
    """Expected work of the nodes, by key."""
    return {key: _work(node, graph.sources[node.encoder], study) for key, node in graph.nodes.items()}


def _work(node: Node, source: Source, study: Study) -> Work:
    budget, test = study.suite.budget, source.test.features
    n_scalars, n_cells = test.n_scalars / len(test), math.prod(test.finest[1])
    if node.makes == Makes.FEATURES:
        features = source.train.features if node.split == "train" else test
        height, width = features.image_px
        return Work(len(features) * height * width * IMAGE_S, (f"features of {node.encoder}", "features"))
    if node.makes in (Makes.READOUT, Makes.NULL_MODEL):
        seconds = budget.task_steps * budget.task_batch * n_cells * READOUT_S
        seconds *= CONSTANT if node.makes == Makes.NULL_MODEL else 1.0
        return Work(seconds, (f"{node.makes.value} {node.task}", node.makes.value, ANY))
    codec = node.of_job.point.codec
    if node.makes == Makes.TABLES:
        return Work(TABLES_S, (f"tables {codec}", "tables", ANY), gradual=False)
    if node.makes in (Makes.CODEC, Makes.SWEEP):
        lmbdas = lmbdas_of(study.suite, codec) if node.makes == Makes.SWEEP else ()
        steps = n_steps(budget, lmbdas, node.continued)
        seconds = steps * budget.codec_batch * n_scalars * CODEC_S
        return Work(seconds, (f"{node.makes.value} {codec}", "codecs", ANY))
    kind, image_s = node.of_job.kind, math.prod(test.image_px) * IMAGE_S
    sent_s = {Kind.CODED: n_scalars * CODE_S, Kind.REMOTE: 2 * image_s}.get(kind, 0.0)
    read_s = READ_S + (image_s if study.suite.head == "tail" else 0.0)
    seconds = len(test) * (sent_s + read_s * len(node.tasks)) + ROW_S * len(node.tasks)
    pools = () if study.suite.head == "tail" else (ANY,)  # a tail's time says nothing of codecs
    if kind == Kind.CEILING:  # it also reads null models and counts operations
        return Work(3 * seconds, ("ceiling", *pools), gradual=False)
    if kind in (Kind.REMOTE, Kind.LABEL):  # depends on the encoder or the label coder, not on codecs
        return Work(seconds, (f"point {codec}", kind.value), gradual=False)
    return Work(seconds, (f"point {codec}", "points", *pools), gradual=False)
