"""Nouns, what each kind of plug-in must do, and small tools.

Imports: nothing.
"""
