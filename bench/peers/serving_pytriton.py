"""Triton by nvidia-pytriton over one ONNX file: `python -P serving_pytriton.py MODEL.onnx NAME PORT GRPC_PORT`.

Triton takes requests over HTTP in its own threads and hands them to a Python function in this process, as the package
documents; the package has no backend of ONNX Runtime. Binary tensors and JSON, no metrics. One call of the function
takes as many requests as have come in, up to 1024 rows.
"""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MOST_ROWS = 1024


def main() -> None:
    """Serve until it is stopped."""
    path, name, port, grpc_port = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (ids,) = session.get_inputs()

    @batch
    def score(ids: np.ndarray) -> list[np.ndarray]:
        (logit,) = session.run(["logit"], {"ids": ids})
        return [logit.reshape(-1, 1)]

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(port),
        grpc_address="127.0.0.1",
        grpc_port=int(grpc_port),
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=name,
            infer_func=score,
            inputs=[Tensor(name="ids", dtype=np.int32, shape=(ids.shape[1],))],
            outputs=[Tensor(name="logit", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=MOST_ROWS, batcher=DynamicBatcher()),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main()
