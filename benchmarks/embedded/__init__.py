"""How the embedded encoders' weights were made: rerun `python -m benchmarks.embedded.train --help`."""
