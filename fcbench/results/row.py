"""The row of ``rates.csv``: `RatePoint` holds its columns, each with its type and meaning."""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

SCHEMA = 6  # Version of the columns of `rates.csv`: value of `RatePoint.schema`
READ_SCHEMAS = (2, 3, 4, 5, 6)  # Readable schemas; columns that an older one lacks are empty
_THIRD, _FOURTH, _FIFTH, _SIXTH = 3, 4, 5, 6  # first schema with a column; READ_SCHEMAS[0] by default


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePoint:
    """One metric of one operating point: a row of ``rates.csv``. A missing value is None, never -1. Fields with a
    default are known only after measuring, or are missing in rows of an older schema."""

    schema: Annotated[int, "version of the columns that the row was written with"]
    point: Annotated[str, "hash of all that determines the point: the key of resumption"]
    status: Annotated[str, "ok, or the reason of the failure"]
    suite: Annotated[str, "name of the suite"]
    kind: Annotated[str, "ceiling, floor, coded, remote or label"]
    dataset: Annotated[str, "name of the data set"]
    dataset_revision: Annotated[str, "of both splits, with a slash between if they differ"]
    image_size: Annotated[
        str, "height x width of the encoder's input [pixels]; empty for features that others extracted"
    ]
    encoder: Annotated[str, "NAME or NAME:VARIANT"]
    weights_sha256: Annotated[str, "of the encoder's weights"]
    weights_origin: Annotated[str, "where the encoder's weights come from"]
    split: Annotated[str, "split point"]
    codec: Annotated[str, "name of the codec, image:NAME, label, or an end of the curves"]
    params: Annotated[str, "JSON: parameters of the operating point"]
    objective: Annotated[str, "what a codec was trained for: mse, levels, task or both"]
    neck: Annotated[str, "name of the neck, or of a chain of necks; empty before a tail"]
    head: Annotated[str, "trained, frozen:NAME, tail (the rest of the encoder's network), or a command of the user"]
    head_sha256: Annotated[str, "of a frozen decoder's or a tail's weights"]
    neck_loss: Annotated[str, "before a frozen decoder: task, distill or both"]
    task: Annotated[str, "name of the task"]
    seed: Annotated[int, "of all that is trained"]
    features_dtype: Annotated[str, "type that features are stored in; empty for float32", _THIRD] = ""
    resizing: Annotated[
        str, "how images were brought to image_size and, by the encoder, to its own; empty if unchanged", _THIRD
    ] = ""
    codec_data: Annotated[
        str, "data set, with its revision, that trained codecs; empty: the training split", _THIRD
    ] = ""
    n_train: Annotated[int | None, "training samples", _THIRD] = None
    width: Annotated[int | None, "channels of the neck's output", _THIRD] = None
    task_steps: Annotated[int | None, "training steps of neck and head at most", _THIRD] = None
    task_batch: Annotated[int | None, "samples per step of neck and head", _THIRD] = None
    task_rate: Annotated[float | None, "learning rate of neck and head", _THIRD] = None
    task_stop: Annotated[str, "why the training of neck and head ended: steps (all done) or plateau", _THIRD] = ""
    task_done: Annotated[int | None, "training steps of neck and head that were done", _FOURTH] = None
    task_seconds: Annotated[float | None, "time of these steps [s]", _FOURTH] = None
    task_gain: Annotated[float | None, "loss that as many steps again would save, estimated [%]", _FOURTH] = None
    task_rest: Annotated[float | None, "loss that endless training would save, extrapolated [%]", _FOURTH] = None
    codec_steps: Annotated[
        int | None,
        "training steps of the codec at most (a quarter from a neighbour's weights on); empty if not trained",
        _THIRD,
    ] = None
    codec_batch: Annotated[int | None, "samples per step of the codec", _THIRD] = None
    codec_rate: Annotated[
        float | None, "learning rate of the codec (a third from the weights at a higher rate on)", _THIRD
    ] = None
    codec_stop: Annotated[str, "why the training of the codec ended: steps (all done) or plateau", _THIRD] = ""
    codec_done: Annotated[int | None, "training steps of the codec that were done", _FOURTH] = None
    codec_seconds: Annotated[float | None, "time of these steps [s]", _FOURTH] = None
    codec_gain: Annotated[float | None, "bits that as many steps again would save, estimated [%]", _FOURTH] = None
    codec_rest: Annotated[float | None, "bits that endless training would save, extrapolated [%]", _FOURTH] = None
    tolerance: Annotated[float | None, "gain of the last doubling of steps below which a training ends", _FOURTH] = None
    n_samples: Annotated[int, "test samples"]
    n_px: Annotated[int, "pixels of the original images, summed over test samples"]
    n_points: Annotated[int, "scalars at the split point before padding, summed over test samples"]
    n_bytes: Annotated[int | None, "size of the .fcb file on disk [bytes]"] = None
    bpp: Annotated[float | None, "bits per pixel of the original images"] = None
    bpfp: Annotated[float | None, "bits per scalar at the split point"] = None
    bytes_per_sample: Annotated[float | None, "size of the file per test sample [bytes]"] = None
    bpp_content: Annotated[float | None, "bpp without container and headers (see parts)", _FIFTH] = None
    parts: Annotated[
        str,
        "JSON: bytes of the file by part: hyper-latent z, latent y, rings y0 ... of strata, seal, container, headers "
        "(parameter sets and boxes of an image coder), ...",
        _FIFTH,
    ] = ""
    bpp_estimated: Annotated[float | None, "bpp that the codec's likelihoods promise"] = None
    rate_alarm: Annotated[bool | None, "coded and estimated size differ by more than 3 % + 16 bytes per sample"] = None
    metric: Annotated[str, "name of the metric; empty for a failed point"] = ""
    value: Annotated[float | None, "value of the metric"] = None
    ci_low: Annotated[float | None, "lower end of the value's 95 % bootstrap interval over test samples"] = None
    ci_high: Annotated[float | None, "upper end of the value's interval"] = None
    unit: Annotated[str, "of the metric; empty for fractions"] = ""
    protocol: Annotated[str, "how the metric was counted, where that is not the only way"] = ""
    higher_is_better: Annotated[bool, "direction of the metric"] = True
    primary: Annotated[bool, "whether the metric is its task's first"] = True
    feature_mse: Annotated[float | None, "mean squared error of features in units of their training variance"] = None
    encode_ms: Annotated[float | None, "median time per sample to encode [ms]"] = None
    decode_ms: Annotated[float | None, "median time per sample to decode [ms]"] = None
    peak_mb: Annotated[
        float | None,
        "memory that coding and decoding a sample adds to this process, not to programs it starts, at its peak [MB]",
        _SIXTH,
    ] = None
    encoder_ms: Annotated[
        float | None, "median time per sample of the encoder up to the split points, one image at a time [ms]", _SIXTH
    ] = None
    neck_ms: Annotated[
        float | None, "median time per sample of the neck, with any adapter, one sample at a time [ms]", _SIXTH
    ] = None
    head_ms: Annotated[
        float | None, "median time per sample of the head's prediction, one sample at a time [ms]", _SIXTH
    ] = None
    kmac_per_px: Annotated[str, "JSON: 1000 multiply-accumulates per original pixel, by stage"] = ""
    n_params: Annotated[str, "JSON: parameters of encoder, codec, neck, head"] = ""
    checkpoint_sha256: Annotated[str, "of the codec's checkpoint"] = ""
    checkpoint_bytes: Annotated[int | None, "size of the codec's checkpoint [bytes]"] = None
    versions: Annotated[str, "JSON: versions of packages, and of the external coders in use"]
    device: Annotated[str, "what computed features and trained: cpu, cuda, ..."]
    gpu: Annotated[str, "model of the GPU; empty if the device is not a GPU", _THIRD] = ""
    cpu: Annotated[str, "model of the processor", _THIRD] = ""
    threads: Annotated[int | None, "threads that PyTorch used", _THIRD] = None
    run: Annotated[str, "run that wrote the row: a record of provenance.json", _THIRD] = ""
    commit: Annotated[str, "git commit of fcbench, with -dirty where files differed from it"]
    utc: Annotated[str, "when the row was made"]


class Column(NamedTuple):
    """A column of ``rates.csv``."""

    type: Any  # of a value
    text: str  # its meaning
    since: int  # the first schema with it


COLUMNS = {
    name: Column(t.__origin__, t.__metadata__[0], (*t.__metadata__[1:], READ_SCHEMAS[0])[0])
    for name, t in get_type_hints(RatePoint, include_extras=True).items()
}


def type_name(kind: Any) -> str:
    """Name of a column's type.

    >>> type_name(float | None)
    'float or empty'
    """
    return " or ".join(str(t.__name__).replace("NoneType", "empty") for t in get_args(kind) or (kind,))


OK = "ok"  # `RatePoint.status` of a point that was measured
