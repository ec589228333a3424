"""Hostile bytes by the thousand: every one is refused in one line, or changes nothing. See ``__main__``."""
