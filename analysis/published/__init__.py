"""What somebody published: curves, read and compared with one of their arms; results, beside those of a study."""
