"""What several task models share."""
