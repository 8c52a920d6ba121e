"""Ladders: what each kind of table keeps of a model's quality at 4 to 256 times fewer bytes."""
