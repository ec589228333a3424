"""What passes from sender to receiver: the file, the codec's checkpoint, the ways of sending.

Imports: core, coders, data, features.
"""
