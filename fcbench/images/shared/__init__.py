"""Code that several image coders share."""
