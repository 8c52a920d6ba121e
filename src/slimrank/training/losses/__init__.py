"""What training makes small: one file for each family of losses, all pure functions of tensors."""
