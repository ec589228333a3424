"""What several necks share."""
