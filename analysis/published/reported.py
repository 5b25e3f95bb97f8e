"""What others have reported on the claims, a row a number, with how it was obtained and where it stands.

The data is results.csv beside this file. A number stands there as it was reported, or can be computed again from what
was (`obtained` says which); where nothing was reported there is no row.
"""

from importlib.resources import files

import pandas as pd

COLUMNS = (
    "claim", "study", "model", "corpus", "text_tokens", "arm", "baseline", "measure", "value", "value_to", "unit",
    "seeds", "obtained", "source", "note",
)  # fmt: skip
"""Columns of results.csv. `value_to` is the other end of a reported range; `seeds` is runs an arm, empty if unknown."""
NUMBERS = ("text_tokens", "value", "value_to", "seeds")

UNITS = ("%", "x", "perplexity", "share", "")
"""Units of `value`; "" for a result in words, which stands in `note`."""
OBTAINED = (
    "printed", "read off plotted curves", "computed from printed end points", "computed from plotted curves",
    "read in the released code", "reported",
)  # fmt: skip
IN_WORDS = "in_words"
"""The measure of a result without a number."""


def reported() -> pd.DataFrame:
    """Every reported result: COLUMNS, of which NUMBERS are float64, NaN where unknown, and the others text."""
    kinds = {name: "float64" if name in NUMBERS else "str" for name in COLUMNS}
    with (files("analysis.published") / "results.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=kinds, keep_default_na=False, na_values={name: [""] for name in NUMBERS})
