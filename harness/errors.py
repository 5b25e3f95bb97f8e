"""The one exception that means "the user can mend this": one line, exit code 2."""

import math
import numbers
from typing import Any


class InputError(ValueError):
    """A field, the value it had and the way out, in one line."""


def require(condition: bool, field: str, value: Any, way_out: str) -> None:
    """Raise `InputError("<field> = <value>: <way_out>")` unless `condition` holds."""
    if not condition:
        raise InputError(f"{field} = {value!r}: {way_out}")


def whole(field: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an integer, if it is a whole number (3 or 3.0) from `least` to `most`; else InputError."""
    number = not isinstance(value, bool) and isinstance(value, int | float)
    fits = number and value == value // 1 and value >= least and (most is None or value <= most)
    require(fits, field, value, f"use a whole number of at least {least}" + (f" and at most {most}" if most else ""))
    return int(value)


def number_fields(value: Any, *names: str) -> None:
    """Raise InputError unless each named field of a value is a finite number."""
    for name in names:
        given = getattr(value, name)
        number = isinstance(given, numbers.Real) and not isinstance(given, bool) and math.isfinite(given)
        require(number, f"{type(value).__name__}.{name}", given, "use a number")


def whole_fields(value: Any, **least: int) -> None:
    """Make the named fields of a frozen value integers of at least so much, below 2**63; else InputError."""
    for name, low in least.items():
        number = whole(f"{type(value).__name__}.{name}", getattr(value, name), low, 2**63 - 1)
        object.__setattr__(value, name, number)
