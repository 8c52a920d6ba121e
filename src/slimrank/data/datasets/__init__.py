"""The datasets, one file each: a frozen config and what loads it."""
