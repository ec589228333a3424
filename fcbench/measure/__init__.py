"""From a suite to rows.

Imports: core, features, transmit, training, results.
"""
