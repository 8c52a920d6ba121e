"""From a goal to a recipe: what the user may lose and what they must fit, and the smallest change that gets there."""
