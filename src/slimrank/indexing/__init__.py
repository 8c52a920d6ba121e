"""Vectors of a catalogue to the top k of a query: one kind of index per file, torch-free, built and opened alike."""
