"""The one exception that means "the user can mend this": one line, exit code 2."""

from typing import Any


class InputError(ValueError):
    """A field, the value it had and the way out, in one line."""


def require(condition: bool, field: str, value: Any, way_out: str) -> None:
    """Raise `InputError("<field> = <value>: <way_out>")` unless `condition` holds."""
    if not condition:
        raise InputError(f"{field} = {value!r}: {way_out}")
