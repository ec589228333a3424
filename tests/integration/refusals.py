"""How the command line refuses."""

from __future__ import annotations

from click.testing import Result


def refused(result: Result) -> str:
    """The one line of a refusal: non-zero exit, no traceback."""
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception  # nothing else escaped
    assert "Traceback" not in result.output
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.output
    return lines[0]
