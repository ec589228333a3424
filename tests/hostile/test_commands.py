"""Hostile commands: what they say and how they end. A traceback, a signal or a wait is always a failure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from warm import ROOT, Warm

RUN = "run --n-train 8 --n-test 4 --weights random --out out --cache-dir cache"
ENCODE = "encode photo.png --checkpoint codec.safetensors"
DECODE = "decode -o new.safetensors --checkpoint codec.safetensors"
COMMITTED = str(ROOT / "results" / "scenes")
LONG = "a" * 300

CASES = f"""
# options of suites: all is checked before anything is read or trained
{RUN} --lambdas nan                                           | 1 | lmbda'] must be a finite number
{RUN} --lambdas inf                                           | 1 | lmbda'] must be a finite number
{RUN} --lambdas -1                                            | 1 | lmbda must be a number from
{RUN} --lambdas 0                                             | 1 | lmbda must be a number from
{RUN} --lambdas ""                                            | 2 | not a list of numbers
{RUN} --lambdas 1,1                                           | 1 | named twice
{RUN} --lambdas 1 --codec uniform                             | 1 | for learned codecs
{RUN} --plan --lambdas nan                                    | 1 | lmbda'] must be a finite number
{RUN} --plan --lambdas -1                                     | 1 | lmbda must be a number from
cross-neck --out out --cache-dir cache --lambdas 0            | 1 | lmbda must be a number from
{RUN} --seeds -1                                              | 1 | seeds must be a whole number from 0
{RUN} --seeds 1000000000000000000000000000000                 | 1 | seeds must be a whole number from 0
{RUN} --seeds ""                                              | 2 | not a list of numbers
{RUN} --seeds ,                                               | 2 | not a list of numbers
{RUN} --seeds 0,0                                             | 1 | named twice
{RUN} --seeds {"9" * 5000}                                    | 2 | not a list of numbers
{RUN} --image-size ²                                          | 2 | not an image size
{RUN} --image-size ٣                                          | 2 | not an image size
{RUN} --image-size 0                                          | 2 | must be a whole number from 1
{RUN} --image-size 100000                                     | 2 | do not fit in memory
{RUN} --image-size {"9" * 5000}                               | 2 | not an image size
{RUN} --threads 1000000                                       | 2 | not in the range
{RUN} --threads 0                                             | 2 | not in the range
{RUN} --coding-workers 1000000                                | 2 | not in the range
{RUN} --encoder-dtype float16                                 | 2 | is not one of
{RUN} --neck-dtype float16                                    | 2 | is not one of
{RUN} --own-caches                                            | 2 | --own-caches is for --ray
{RUN} --neck neck_3L@bfloat16                                 | 1 | neck_3L
{RUN} --encoder hiera_nano@float16                            | 1 | hiera_nano@float16
{RUN} --n-train 0                                             | 2 | not in the range
{RUN} --n-test 99999999999                                    | 1 | n_test must be a whole number from 1
{RUN} --task-steps 99999999999                                | 1 | task_steps must be
{RUN} --batch 99999999999                                     | 1 | task_batch must be
{RUN} --codec uniform --codec uniform                         | 1 | named twice
{RUN} --task depth --task depth                               | 1 | named twice
{RUN} --task ""                                               | 1 | tasks must be text
{RUN} --encoder hiera_nano --encoder hiera_nano               | 1 | named twice
{RUN} --codec {LONG}                                          | 1 | unknown codec
{RUN} --codec image:                                          | 1 | unknown image codec
{RUN} --codec no_such_file.py                                 | 1 | cannot read the plug-in file
{RUN} --codec folder/../pipe                                  | 1 | unknown codec
{RUN} --device meta                                           | 1 | --device cpu
{RUN} --device cuda:99                                        | 1 | --device cpu
{RUN} --out text                                              | 1 | --out
{RUN} --cache-dir text                                        | 1 | --cache-dir
{RUN} --out {LONG}                                            | 1 | too long
{RUN} --data-root folder                                      | 1 | takes no --data-root
{RUN} --split-point nowhere --task depth                      | 1 | split point
# suite files
run syntax.py                                                 | 1 | syntax.py: SyntaxError
run import.py                                                 | 1 | 'no_such_module' (line 2)
run field.py                                                  | 1 | 'codec'. Did you mean 'codecs'?
run nul.py                                                    | 1 | null bytes (line 2)
run latin.py                                                  | 1 | (line 2)
run raises.py                                                 | 1 | on purpose (line 4)
run exits.py                                                  | 1 | SystemExit: 0 (line 1)
run other.py                                                  | 1 | must hold SUITE
run empty.py                                                  | 1 | sets no SUITE
run none.py                                                   | 1 | got None (line 2)
run bots.py                                                   | 1 | got bots
run string.py                                                 | 1 | Did you mean 'uniform'
run seeds.py                                                  | 1 | at least one value, got none (line 2)
run budget.py                                                 | 1 | got nan (line 2)
run folder                                                    | 1 | is a directory
run pipe                                                      | 1 | not a regular file
run missing.py                                                | 1 | not found
run photo.png                                                 | 1 | cannot load the suite photo.png
run syntax.py --plan                                          | 1 | syntax.py: SyntaxError
cross-neck raises.py                                          | 1 | on purpose (line 4)
# files coded and read
{ENCODE} -o new.fcb                                           | 0 | 1 samples
{ENCODE} -o new.fcb --image-size 100000                       | 2 | do not fit in memory
{ENCODE} -o new.fcb --image-size 8000                         | 1 | out of memory
{ENCODE} -o new.fcb --image-size ²                            | 2 | not an image size
{ENCODE} -o new.fcb --device quantum                          | 1 | --device cpu
encode missing.png --checkpoint codec.safetensors -o new.fcb  | 1 | missing.png
encode cut.png --checkpoint codec.safetensors -o new.fcb      | 1 | cut.png
encode text --checkpoint codec.safetensors -o new.fcb         | 1 | text
encode photo.png --checkpoint text -o new.fcb                 | 1 | text
encode photo.png --checkpoint folder -o new.fcb               | 1 | folder
{ENCODE} -o folder                                            | 1 | folder
{ENCODE} -o photo.png --overwrite                             | 1 | photo.png
{ENCODE} -o codec.safetensors --overwrite                     | 1 | codec.safetensors
{ENCODE} -o text                                              | 1 | --overwrite
decode photo.fcb --checkpoint codec.safetensors -o codec.safetensors --overwrite | 1 | codec.safetensors
{ENCODE} -o missing/{LONG}/new.fcb                            | 1 | too long
decode photo.fcb --checkpoint codec.safetensors -o new.safetensors  | 0 | new.safetensors
decode cut.fcb --checkpoint codec.safetensors -o new.safetensors    | 1 | cut.fcb
decode flipped.fcb --checkpoint codec.safetensors -o new.safetensors | 1 | flipped.fcb
decode text --checkpoint codec.safetensors -o new.safetensors | 1 | text
decode photo.fcb --checkpoint text -o new.safetensors         | 1 | text
# forged checkpoints, their digests fit
inspect int-params.safetensors                                | 1 | int-params.safetensors is not an fcbench codec check
inspect null-params.safetensors                               | 1 | 'params' must be dict, got None
inspect null-bits.safetensors                                 | 1 | 'bits' must be a finite number or text, got None
inspect many-bits.safetensors                                 | 1 | many-bits.safetensors does not fit uniform(bits=99)
inspect no-maps.safetensors                                   | 1 | must be of one map or more
inspect int-encoder.safetensors                               | 1 | 'encoder' must be str, got 7
inspect red-encoder.safetensors                               | 1 | \\x1b[31mred
inspect red-codec.safetensors                                 | 1 | \\x1b[31mred
inspect list-codec.safetensors                                | 1 | 'codec' must be str
inspect other-codec.safetensors                               | 1 | does not fit pq(dims=4, bits=4): 1 missing
inspect int-file.safetensors                                  | 1 | 'file' must be str, got 5
inspect null-version.safetensors                              | 1 | 'version' must be int, got None
inspect new-version.safetensors                               | 1 | has version 99
inspect minus-channels.safetensors                            | 1 | -1 channels
inspect no-channels.safetensors                               | 1 | 0 channels
inspect many-channels.safetensors                             | 1 | 1000000000 channels, its statistics are of
inspect other-layout.safetensors                              | 1 | layout 'HWC'
inspect int-name.safetensors                                  | 1 | 'name' must be str, got 3
inspect few-tensors.safetensors                               | 1 | 1 missing: maps.0.centroids
encode photo.png --checkpoint red-encoder.safetensors -o new.fcb | 1 | \\x1b[31mred
encode photo.png --checkpoint int-params.safetensors -o new.fcb  | 1 | int-params.safetensors
decode photo.fcb --checkpoint int-params.safetensors -o new.safetensors | 1 | int-params.safetensors
inspect few-rows.safetensors                                  | 0 | whole
encode photo.png --checkpoint few-rows.safetensors -o new.fcb | 1 | sample 0 cannot be coded
decode few-rows.fcb -o new.safetensors                        | 1 | few-rows.fcb, record 0
# forged streams, their checksums fit
{DECODE} other-codec.fcb  | 1 | other-codec.fcb has the codec pq in its header, codec.
{DECODE} more-channels.fcb                                    | 1 | more-channels.fcb has the maps
{DECODE} other-stride.fcb                                     | 1 | stride 1 px
{DECODE} red-name.fcb                                         | 1 | \\x1b[31mred
{DECODE} other-check.fcb | 1 | other-check.fcb, record 0: the decoder is out of step
{DECODE} surplus.fcb                                          | 1 | surplus.fcb, record 0: the payload of
{DECODE} zeros.fcb                                            | 1 | zeros.fcb, record 0: the payload of
{DECODE} empty.fcb                                            | 1 | empty.fcb: holds 0 samples of 1 maps
inspect empty.fcb                                             | 1 | empty.fcb: holds 0 samples of 1 maps
inspect red-name.fcb                                          | 0 | \\x1b[31mred
inspect codec.safetensors photo.fcb                           | 0 | whole
inspect missing                                               | 1 | missing
inspect text                                                  | 1 | text
inspect folder                                                | 1 | folder
inspect cut.fcb                                               | 1 | cut.fcb
inspect photo.png                                             | 1 | photo.png
# results
compare folder --anchor uniform                               | 1 | rates.csv
compare {COMMITTED} --anchor nothing                          | 1 | nothing
compare {COMMITTED} --anchor uniform --metric nothing         | 1 | nothing
compare {COMMITTED} --anchor uniform -o new.xyz               | 1 | .xyz
compare {COMMITTED} --anchor uniform -o folder/../text/new.md | 1 | text
cost {COMMITTED} --general hiera_nano --special nothing       | 1 | nothing
plot {COMMITTED} -o new.xyz                                   | 1 | .svg
plot missing -o new.png                                       | 1 | missing
list codecs                                                   | 0 | hyperprior
list nothing                                                  | 2 | nothing
rum                                                           | 2 | Did you mean 'run'
"""


def _cases() -> Iterator[tuple[str, int, str]]:
    for line in CASES.splitlines():
        if line and not line.startswith("# "):
            command, code, word = (part.strip() for part in line.rsplit("|", 2))
            yield command, int(code), word


@pytest.mark.parametrize(("command", "code", "word"), list(_cases()), ids=lambda value: str(value)[:60])
def test_it_says_what_is_wrong(warm: Warm, folder: Path, command: str, code: int, word: str) -> None:
    for left in folder.glob("new.*"):
        left.unlink()
    before = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
    outcome = warm(shlex.split(command), folder)
    assert "Traceback" not in outcome.output and "\x1b" not in outcome.output, outcome.output
    assert outcome.code == code, outcome
    assert word in outcome.output
    assert code == 0 or len([line for line in outcome.output.splitlines() if line.startswith("Error: ")]) == 1
    after = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
    assert {name: size for name, size in after.items() if not name.startswith("new.")} == before
