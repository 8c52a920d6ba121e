"""Models: rows to scores, one architecture a file, all over one fused table per dimension."""
