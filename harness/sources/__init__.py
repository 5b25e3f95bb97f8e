"""Where tokens come from: one file a source."""

HELD_OUT = 2**64 - 1
"""The seed of every generated source's held-out set; training seeds lie below 2**63."""
