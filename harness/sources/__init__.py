"""Where tokens come from: one file a source, and for text one for each thing that can change."""

import textwrap

HELD_OUT = 2**64 - 1
"""The seed of every generated source's held-out set; training seeds lie below 2**63."""


def in_a_line(error: Exception) -> str:
    """An error's message in one line, without its full stop, where what matters may stand in any of its lines."""
    return textwrap.shorten(str(error), 300, placeholder=" ...").rstrip(".") or type(error).__name__


def first_line(error: Exception) -> str:
    """The first line of an error's message, without its full stop: to stand inside another message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
