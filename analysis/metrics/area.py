"""The loss gap of a pair over its whole run, in one number."""

from analysis.cells import Run
from analysis.metrics.speedup import auc_gain


def auc_gain_nats(treated: Run, baseline: Run) -> float:
    """Area gain, nats"""
    return auc_gain(baseline.curve, treated.curve) if baseline.curve and treated.curve else float("nan")
