"""Curves that somebody published: read, compared with one of their arms, and told."""
