"""Tests run in two processes (``-n 0``: in one), each with one thread, and so do the programs that they start."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
