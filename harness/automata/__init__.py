"""Compiled parts of the automaton generator."""
