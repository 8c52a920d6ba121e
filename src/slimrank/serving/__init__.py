"""Artifact to service: models over HTTP and gRPC, the Open Inference Protocol and ranking requests of raw rows.

serve(Settings(models=models_of([Path("runs/clicks/artifact")]), port=8000))
"""

from slimrank.serving.server import serve
from slimrank.serving.settings import Limits, Settings, models_of

__all__ = ["Limits", "Settings", "models_of", "serve"]
