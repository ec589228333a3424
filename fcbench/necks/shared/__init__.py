"""Code that several necks share."""
