"""LitServe over one ONNX file: `python -P serving_litserve.py MODEL.onnx NAME PORT json|raw [REQUESTS]`.

A `LitAPI` in one worker process with the queue that its documentation recommends for many requests, beside one HTTP
process. It has no protocol for tensors: `json` takes and gives the Open Inference Protocol's JSON, `raw` the bytes of
the ids and of the logits and nothing else. With REQUESTS it joins that many at most in one call.
"""

import sys
from typing import Annotated, Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Body, Response


class Scorer(litserve.LitAPI):
    """The graph's `logit` of its ids, JSON to JSON."""

    def __init__(self, path: str, name: str, requests: int) -> None:
        joined = {"max_batch_size": requests, "batch_timeout": 0.002} if requests > 1 else {}
        super().__init__(api_path=f"/v2/models/{name}/infer", **joined)
        self.path, self.name, self.requests = path, name, requests

    def setup(self, device: str) -> None:
        """Open the session, in the worker."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        (ids,) = self.session.get_inputs()
        self.columns = ids.shape[1]

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """The ids [rows, K] of a request."""
        (ids,) = request["inputs"]
        return np.array(ids["data"], np.int32).reshape(ids["shape"])

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Rows of several requests, which are of one size here, as those of one."""
        return np.concatenate(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Ids to logits; of several requests [requests, rows]."""
        (logit,) = self.session.run(["logit"], {"ids": x})
        return logit.reshape(-1, CANDIDATES) if self.requests > 1 else logit

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """Logits as the protocol has them."""
        told = {"name": "logit", "datatype": "FP32", "shape": list(output.shape), "data": output.tolist()}
        return {"model_name": self.name, "outputs": [told]}


class RawScorer(Scorer):
    """The same, bytes to bytes."""

    def decode_request(self, request: Annotated[bytes, Body()]) -> np.ndarray:
        """The ids of a body."""
        return np.frombuffer(request, np.int32).reshape(-1, self.columns)

    def encode_response(self, output: np.ndarray) -> Response:
        """The bytes of the logits."""
        return Response(output.tobytes(), media_type="application/octet-stream")


CANDIDATES = 256

if __name__ == "__main__":
    path, name, port, codec, *more = sys.argv[1:]
    api = {"json": Scorer, "raw": RawScorer}[codec](path, name, int(more[0]) if more else 1)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        "127.0.0.1", int(port), num_api_servers=1, log_level="warning", generate_client_file=False, access_log=False
    )
