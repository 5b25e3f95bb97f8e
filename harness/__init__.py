"""A harness for scaling studies of pre-pre-training on neural cellular automata."""
