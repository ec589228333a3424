"""What reaches a terminal: names come from files, too, and may hold escape sequences."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from fcbench.cli.main import main
from fcbench.cli.say import LogFormatter, say
from fcbench.core.codecs import Bitstream
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec
from fcbench.core.progress import Report
from fcbench.reports.tables import Document, Table, terminal
from fcbench.transmit.container import ContainerWriter, Header

RED, SHOWN = "\x1b[31mred", r"\x1b[31mred"
ROOT = Path(__file__).resolve().parents[2] / "fcbench"


@pytest.mark.parametrize("file", sorted((ROOT / "cli").glob("*.py")), ids=lambda p: p.name)
def test_verbs_print_by_say_alone(file: Path) -> None:
    if file.name != "say.py":
        assert not re.search(r"\b(click\.s?echo|click\.secho|print)\(", file.read_text()), file


def test_say_escapes_all_but_lines_and_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a\tb\n{RED}\r\x9b31m\u202e\udcff", nl=False)
    assert capsys.readouterr().out == f"a\tb\n{SHOWN}" + r"\r\x9b31m\u202e\udcff"


def test_names_of_a_stream_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a.fcb"
    spec = FeatureSpec(f"{RED}\nfake  line", 1, 16)
    with ContainerWriter(path, Header(RED, "ab" * 32, (spec,))) as writer:
        writer.append(Bitstream({"y": b"1"}, 1, 1), {spec.name: (1, 1)})
    shown = CliRunner().invoke(main, ["inspect", str(path)])
    assert shown.exit_code == 0 and "\x1b" not in shown.output
    assert SHOWN + r"\nfake  line: 1 channels" in shown.output
    assert re.search(rf"codec +{re.escape(SHOWN)}\n", shown.output)


def test_names_in_errors_are_escaped_and_stay_on_their_line(tmp_path: Path) -> None:
    (tmp_path / f"{RED}\nError: fake").write_bytes(b"")
    refused = CliRunner().invoke(main, ["inspect", str(tmp_path / f"{RED}\nError: fake")])
    assert refused.exit_code == 1 and "\x1b" not in refused.output
    assert len(refused.output.splitlines()) == 1 and SHOWN + r"\nError: fake" in refused.output


def test_progress_and_logs_are_escaped() -> None:
    text = io.StringIO()
    with Report(1, Console(file=text, force_terminal=True, color_system=None, width=200)) as report:
        with report.part(f"{RED} [bold]"):
            report.finish(f"{RED} [bold]", 0.0)
        report.say(f"FAILED {RED}\nx")
    assert f"{SHOWN} [bold]" in text.getvalue() and rf"FAILED {SHOWN}\nx" in text.getvalue()
    assert "\x1b[31m" not in text.getvalue()
    record = logging.LogRecord("x", logging.WARNING, "", 0, "left out: %s", (RED,), None)
    assert LogFormatter("%(levelname)s: %(message)s").format(record) == f"WARNING: left out: {SHOWN}"


def test_tables_take_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither markup nor colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    table = Table("[/red]", ["[bold]name", "n"], [["[/x]", "1"], ["[red]\\", "2"]])
    shown = terminal(Document([table], "rows", pd.DataFrame(), "", []), 80)
    assert all(word in shown for word in ("[/red]", "[bold]name", "[/x]", "[red]\\")) and "\x1b" not in shown


def test_an_error_is_one_line_whatever_it_says() -> None:
    from fcbench.cli.main import _line_of

    assert _line_of(FcbenchError(f"a\n{RED}")) == rf"a\n{SHOWN}"
