"""The page that `fcbench report` writes."""
