"""Artifact to service: one artifact over HTTP, the Open Inference Protocol and a ranking endpoint for raw rows.

Imports the runtime only. Small on purpose: no gRPC, no batching across requests, no reload.
"""

from slimrank.serving.server import Limits, serve

__all__ = ["Limits", "serve"]
