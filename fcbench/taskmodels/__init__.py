"""Task models: one file each (`fcbench.types.TaskModelPlugin`)."""
