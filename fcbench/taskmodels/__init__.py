"""Third-party task models whose decoders serve as frozen heads, one module each.

Imports: core, encoders, tasks.
"""
