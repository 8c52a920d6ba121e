"""Training: one loop with small hooks, and losses as pure functions."""
