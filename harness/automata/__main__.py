"""python -m harness.automata: compile the kernels for this machine into numba's cache, once.

Otherwise each process that first generates tokens would do it, several at a time.
"""

import numpy as np

from harness.sources.nca import NCA

for states in (2, 10, 15):  # the paper's alphabets: one version each
    for temperature in (0.0, 1e-4):
        NCA(states=states, temperature=temperature, band=(0.0, 1.0)).open().sequences(0, np.arange(1), 64)
