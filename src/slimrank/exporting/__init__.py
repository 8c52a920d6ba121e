"""Model to artifact: the graph, rewritten until a runtime can run it on integers, checked, and written."""
