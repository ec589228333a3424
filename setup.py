"""Packaging lives in setup.cfg; here a build adds the commit that it was made from."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROVENANCE = Path(__file__).resolve().parent / "fcbench" / "results" / "provenance.py"


class BuildWithCommit(build_py):
    """Write ``fcbench/commit.txt`` into the build; the source tree and editable installs stay without it."""

    def run(self) -> None:
        built = Path(self.build_lib, "fcbench")
        if not self.editable_mode:
            shutil.rmtree(built, ignore_errors=True)  # modules of an earlier build would be found as plug-ins
        super().run()
        if not self.editable_mode:
            commit = runpy.run_path(str(PROVENANCE))["commit"]()
            (built / "commit.txt").write_text(commit, encoding="utf-8")


setup(cmdclass={"build_py": BuildWithCommit})
