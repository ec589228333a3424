"""Embedded encoders, codecs and results need no network: no verb opens a connection unless it is told to."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import Result


def test_no_verb_asks_the_network(
    tiny: Callable[..., Result], fcbench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def refuse(*args: Any, **named: Any) -> NoReturn:
        asked.append(args)
        raise OSError("no network")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    out = tmp_path / "out"
    results = [tiny(out, "--task", "depth", "--codec", "uniform", "--keep-streams")]
    for verb in (
        ("compare", out, "--anchor", "uniform"),
        ("report", out, "-o", tmp_path / "page.html"),
        ("verify", out),
        ("list", "encoders"),
    ):
        results.append(fcbench(*verb))
    results.append(fcbench("inspect", *out.glob("streams/*")))
    assert [r.exit_code for r in results] == [0] * len(results), [r.output for r in results]
    assert asked == []
