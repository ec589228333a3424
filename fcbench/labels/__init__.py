"""Label coding: one file per task, ``encode`` and ``decode`` of its own target."""
