"""Artifact to scores: verified loading, checked inputs, one session. Needs numpy and onnxruntime, never torch.

model = load("run/artifact")
model.predict([{"user": 7, "item": 42}]).probability
"""

from slimrank.runtime.model import Model, Predictions, load, predict, sigmoid

__all__ = ["Model", "Predictions", "load", "predict", "sigmoid"]
