"""Neural cellular automata as arrays: the definition, kernels that equal it bit by bit, tokens, scores, replay."""
