"""kserve's Python server over one ONNX file: `python -P serving_kserve.py MODEL.onnx NAME PORT`.

A subclass of its `Model`, as its documentation writes one, with numpy in and out: binary tensors and JSON. One worker,
uvloop, no gRPC, no line logged for a request, and `predict` on the loop, without a thread.
"""

import logging
import sys

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Scorer(Model):
    """The graph's `logit` of its inputs."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        """Tensors to the tensor of logits, in the form that was asked for."""
        feeds = {each.name: each.as_numpy() for each in payload.inputs}
        (logit,) = self.session.run(["logit"], feeds)
        output = InferOutput("logit", list(logit.shape), "FP32")
        output.set_data_from_numpy(logit, binary_data=bool(payload.use_binary_outputs))
        return InferResponse(payload.id, self.name, [output], use_binary_outputs=payload.use_binary_outputs)


if __name__ == "__main__":
    path, name, port = sys.argv[1:4]
    server = ModelServer(
        http_port=int(port), workers=1, enable_grpc=False, enable_latency_logging=False, event_loop="uvloop"
    )
    logging.disable(logging.INFO)
    server.start([Scorer(name, path)])
