"""The figures, one function each, as SVG elements (PNG data URIs for pixels) that a page can hold."""

from analysis.figures.arms import controls, performance_profile
from analysis.figures.budget import size_budget_surface, substitution
from analysis.figures.complexity import complexity_response, domain_band_heatmap
from analysis.figures.coverage import status_map
from analysis.figures.curves import induction_probe, loss_curves, loss_gap, speedup_by_loss
from analysis.figures.early import early_signal
from analysis.figures.ends import cost_pareto, decayed_endpoints
from analysis.figures.forest import speedup_forest
from analysis.figures.mechanism import mechanism_residuals
from analysis.figures.stages import STATES, automata, first_stages, learned_check, learned_gain

__all__ = [
    "STATES",
    "automata",
    "complexity_response",
    "controls",
    "cost_pareto",
    "decayed_endpoints",
    "domain_band_heatmap",
    "early_signal",
    "first_stages",
    "induction_probe",
    "learned_check",
    "learned_gain",
    "loss_curves",
    "loss_gap",
    "mechanism_residuals",
    "performance_profile",
    "size_budget_surface",
    "speedup_by_loss",
    "speedup_forest",
    "status_map",
    "substitution",
]
