"""Compression: an ordered list of steps, each a frozen config and one function, from a model to a smaller one."""
