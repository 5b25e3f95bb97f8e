"""Where tokens come from: one file a source, and for text one for each thing that can change."""

HELD_OUT = 2**64 - 1
"""The seed of every generated source's held-out set; training seeds lie below 2**63."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, without its full stop: to stand inside another message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
