"""Samples of results folders packed into one file each, to be committed: ``python -m benchmarks.pack FOLDER...``."""

from __future__ import annotations

from pathlib import Path

import click

from fcbench.results.samples import pack


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(folders: tuple[Path, ...]) -> None:
    for folder in folders:
        file = pack(folder)
        click.echo(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
