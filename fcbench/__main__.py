"""``python -m fcbench``: the command line without its script, for a PATH that lacks it."""

import sys

from fcbench.cli.main import main

if __name__ == "__main__":
    sys.argv[0] = "fcbench"  # for the record of the run
    main(prog_name=sys.argv[0])
