"""slimrank makes search and recommendation models small and fast, and proves that they still rank."""

__version__ = "0.1.0"
