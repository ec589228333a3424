"""No value of any option of any verb gives a traceback, a crash or a wait.

Verbs that measure stop before they open data (`Warm`); the others get small files, or none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warm import Warm

from fcbench.cli.main import VERBS, main
from fcbench.core import registry

GIVEN = {
    "compare": ["folder", "--anchor=uniform"],
    "cost": ["folder", "--general=hiera_nano", "--special=sam2_nano"],
    "plot": ["folder", "--output=new.png"],
    "encode": ["missing.png", "--checkpoint=codec.safetensors", "--output=new.fcb"],
    "decode": ["photo.fcb", "--checkpoint=codec.safetensors", "--output=new.safetensors"],
    "curves": ["folder"],
    "export": ["codec.safetensors", "--image-size=32", "--output=new"],
    "inspect": ["photo.fcb"],
    "merge": ["folder", "folder", "--output=new"],
    "reproduce": ["paper"],
    "report": ["folder", "--output=new.html"],
    "verify": ["folder"],
    "list": ["codecs"],
}
"""What a verb needs at least."""
N_EXAMPLES = {"run": 100, "cross-neck": 50, "doctor": 10}

FILES = ["folder", "pipe", "text", "photo.png", "photo.fcb", "cut.fcb", "codec.safetensors", "syntax.py", "raises.py"]
NAMES = [name for kind in registry.KINDS for name in registry.names(kind)]
numbers = st.one_of(
    st.integers(-3, 3), st.integers(), st.floats(), st.sampled_from([10**30, 2**32, "1e400", "²", "٣", "1_0", "0x10"])
).map(str)
texts = st.one_of(
    st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), max_size=12),
    st.text(st.sampled_from("\x1b\r\n\t\x7f\udcff:=,.x- '\"{}%"), max_size=6),
    st.sampled_from(
        ["a" * 300, "a/" * 3000, "%s", "{0}", "-", "--", "label", "image:", "remote", "all", "random", "auto"]
    ),
)
atoms = st.one_of(numbers, texts, st.sampled_from(FILES), st.sampled_from(NAMES))
values = st.one_of(
    atoms,
    st.tuples(atoms, st.sampled_from([",", ":", "=", "x", ".py:", "+"]), atoms).map("".join),
    st.tuples(st.sampled_from(["depth=", "pose=", "image:", "uniform:", "cuda:", "timm:", "sam2:"]), atoms).map(
        "".join
    ),
)


def _parameters(verb: str) -> list[click.Parameter]:
    command = main.get_command(click.Context(main), verb)
    assert command is not None
    return command.params


@st.composite
def _commands(draw: Any, verb: str) -> list[str]:
    """A verb with what it needs and up to three options or arguments of any value."""
    words = [verb, *GIVEN.get(verb, [])]
    for parameter in draw(st.lists(st.sampled_from(_parameters(verb)), min_size=1, max_size=3)):
        if isinstance(parameter, click.Argument):
            words.append(draw(values))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts])))
        else:
            words.append(f"{max(parameter.opts, key=len)}={draw(values)}")
    return words


@pytest.mark.parametrize("verb", list(VERBS))
def test_no_value_gives_a_traceback(warm: Warm, folder: Path, verb: str) -> None:
    @settings(
        max_examples=N_EXAMPLES.get(verb, 30),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(_commands(verb))
    def check(command: list[str]) -> None:
        outcome = warm(command, folder, work=False)
        assert "Traceback" not in outcome.output, outcome.output[-3000:]
        assert outcome.code in (0, 1, 2), outcome

    check()


def test_every_verb_is_tried() -> None:
    needs = {v for v in VERBS if any(p.required for p in _parameters(v))}
    assert needs == set(GIVEN)
