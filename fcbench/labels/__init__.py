"""Coders of a task's own output, one module each.

Imports: core, coders.
"""
