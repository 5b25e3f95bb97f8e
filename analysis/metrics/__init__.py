"""What is computed of a study, a file a metric: pure functions of curves and cells, and their tables."""
