"""Packaging lives in setup.cfg; here the build adds the commit that it was built from."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROVENANCE = Path(__file__).resolve().parent / "fcbench" / "results" / "provenance.py"


class BuildWithCommit(build_py):
    """Write ``fcbench/commit.txt`` into the build; the source tree and editable installs stay without it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            commit = runpy.run_path(str(PROVENANCE))["commit"]()
            Path(self.build_lib, "fcbench", "commit.txt").write_text(commit, encoding="utf-8")


setup(cmdclass={"build_py": BuildWithCommit})
