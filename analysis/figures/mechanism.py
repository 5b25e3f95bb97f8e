"""What is left of a treated curve under each picture of its head start."""

import math
from collections.abc import Sequence

import numpy as np

from analysis import numbers
from analysis.figures.style import COLOURS, INK, PANELS, drawing, more, token_axis
from analysis.metrics.mechanism import Mechanism

LOOKS = {"multiplier": (COLOURS[0], "-", "o"), "offset": (COLOURS[1], "--", "s"), "vertical": (COLOURS[2], ":", "^")}


def mechanism_residuals(found: Sequence[tuple[str, Mechanism | None]]) -> list[str]:
    """Residuals of the three pictures against text tokens, an SVG a cell (label, mechanism): a picture that holds lies
    along zero. The legend gives each one's parameter, rms and distance in AIC from the best; the best is thick."""
    shown = [(label, m) for label, m in found if m is not None and len(m.tokens)]
    drawn: list[str] = []
    for label, m in shown[:PANELS]:
        with drawing() as d:
            d.axes.axhline(0, color=INK, lw=1)
            for kind, values in m.residuals.items():
                shade, line, marker = LOOKS.get(kind, (INK, "-", "o"))
                best = kind == m.best
                text = (
                    f"{kind} {_parameter(kind, m.parameter[kind])}: rms {1000 * m.rms_nats[kind]:.2f} mnats, "
                    f"dAIC {m.daic[kind]:.1f}"
                )
                style = {"color": shade, "ls": line, "lw": 2.2 if best else 1.1, "marker": marker, "ms": 3}
                mnats = 1000 * np.asarray(values)
                d.line(d.axes, m.tokens, mnats, kind, text, label=text, **style)
            token_axis(d.axes)
            d.axes.set_ylabel("treated loss minus picture, millinats")
            d.title(label)
            d.readout(d.axes, "tokens", "number")
            d.legend(d.axes)
            d.note(more((len(shown) - PANELS) * (not drawn), "cells"))
            drawn.append(d.svg(f"Residuals of three pictures of the head start of {label}; best: {m.best}"))
    return drawn


def _parameter(kind: str, value: float) -> str:
    if not math.isfinite(value):
        return numbers.NONE
    if kind == "multiplier":
        return numbers.times(value)
    return f"{numbers.tokens(value)} tokens" if kind == "offset" else f"{value:+.4f} nats"
