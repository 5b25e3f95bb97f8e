"""Automata to look at before they are trained on: the published bands of complexity, alphabets, the smoke study's.

    python -m harness preview search_spaces/bands.py:band_50_up
    python -m harness preview search_spaces/bands.py:band_30_40 --beside search_spaces/bands.py:python_source

A source is any value of a search space file: change one here, or name one of your own file. Of the paper (arXiv
2603.10055) are the four bands at 10 states and the alphabets of 2 and 15; it names no bands of those, and the same
numbers mean something else there: i.i.d. tokens gzip to .67 at 10 states, to .25 at 2 and to .73 at 15.
"""

from harness.sources.nca import NCA
from harness.sources.text import BPE, Text

band_20_30 = NCA(band=(0.2, 0.3))
band_30_40 = NCA(band=(0.3, 0.4))
band_40_50 = NCA(band=(0.4, 0.5))
band_50_up = NCA(band=(0.5, 1.0))
all_rules = NCA()

two_states = NCA(states=2)
fifteen_states = NCA(states=15)

smoke = NCA(states=2, grid=8, patch=2, band=(0.08, 0.21))

python_source = Text.stdlib(tokenizer=BPE(512))
