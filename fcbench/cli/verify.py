"""Check that results folders hold what they claim."""

from __future__ import annotations

from pathlib import Path

import click

from fcbench.cli.options import results_argument
from fcbench.cli.say import say
from fcbench.core.errors import FcbenchError

MAX_SHOWN = 20


@click.command("verify")
@results_argument
def verify(results: tuple[Path, ...]) -> None:
    """Check results folders by the rules for submissions: rows are readable and add up, each names a run in
    provenance.json and a commit; samples reproduce every value; the .fcb files of --keep-streams have the right sizes,
    checkpoints and checksums. Runs nothing.

    \b
    Examples:
      fcbench verify runs/default
    """
    from fcbench.analysis import verify as verifying
    from fcbench.transmit.container import ContainerReader

    n_faulty = 0
    for folder in results:
        faults = verifying.verify(folder)
        for file in sorted((folder / verifying.STREAMS).glob("*.fcb")):
            try:
                list(ContainerReader(file))
            except FcbenchError as error:
                faults.append(str(error))
        for line in faults[:MAX_SHOWN]:
            say(f"{folder}: {line}", err=True)
        n_faulty += bool(faults)
        say(f"{folder}: {f'{len(faults)} faults' if faults else 'holds what it claims'}")
    if n_faulty:
        raise FcbenchError(f"{n_faulty} of {len(results)} folders do not hold what they claim")


COMMAND = verify
