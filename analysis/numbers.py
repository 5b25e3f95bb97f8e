"""How numbers read in tables and sentences."""

import math

NONE = "-"


def tokens(value: float) -> str:
    """A count with its unit of thousand: 820_000 -> "0.82M"."""
    if not math.isfinite(value):
        return NONE
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.1 * size and abs(value) >= 1000:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def nats(value: float) -> str:
    """A loss to three decimals."""
    return f"{value:.3f}" if math.isfinite(value) else NONE


def signed_nats(value: float) -> str:
    return f"{value:+.3f}" if math.isfinite(value) else NONE


def times(value: float) -> str:
    """A ratio: 1.503 -> "1.50x"; 0 and infinity are what is left of a bound that could not be read."""
    if math.isnan(value):
        return NONE
    if math.isinf(value) or value >= 1000:
        return "> 1000x"
    return f"{value:.2f}x"


def percent(value: float) -> str:
    return f"{value:+.1f} %" if math.isfinite(value) else NONE


def share(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else NONE


def between(low: float, high: float, digits: int = 2, sign: str = "") -> str:
    """An interval: "[1.10, 1.38]"; an open end is infinite, an unknown one leaves the text empty."""
    if math.isnan(low) or math.isnan(high):
        return ""
    ends = [
        f"{v:{sign}.{digits}f}" if math.isfinite(v) and abs(v) < 1000 else ("∞" if v > 0 else "-∞") for v in (low, high)
    ]
    return f"[{ends[0]}, {ends[1]}]"


def seconds(value: float) -> str:
    """A duration: "48 s", "12.5 min", "3.1 h"."""
    if not math.isfinite(value):
        return NONE
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"
