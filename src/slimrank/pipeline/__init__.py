"""The run: stages in a directory, from data to report."""
