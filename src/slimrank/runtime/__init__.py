"""Artifact to scores: verified loading, checked inputs, one session. Needs numpy and onnxruntime, never torch.

model = load("run/artifact")
model.predict([{"user": 7, "item": 42}]).probability

finder = load_retriever("run/artifact")  # where the artifact answers with items
finder.top_k([{"history": [7, 42]}], k=10).items

graph = load_graph("run/artifact")  # where it was a module of one's own, which is asked by tensors
graph.run({"user": users, "item": items})["output"]
"""

from slimrank.runtime.graph import Graph, load_graph
from slimrank.runtime.loading import load_any
from slimrank.runtime.model import Model, Predictions, load, predict, sigmoid
from slimrank.runtime.retriever import Retriever, TopK, load_retriever

__all__ = [
    "Graph",
    "Model",
    "Predictions",
    "Retriever",
    "TopK",
    "load",
    "load_any",
    "load_graph",
    "load_retriever",
    "predict",
    "sigmoid",
]
