"""Reasoning transfer: benchmarks of trained stages, from a pure score to a stage with samples."""
