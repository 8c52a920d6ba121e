"""MLServer over one ONNX file: `python -P serving_mlserver.py MODEL.onnx NAME PORT GRPC_PORT [ROWS]`.

A subclass of its `MLModel` with its numpy codec. It takes JSON over HTTP and no binary tensors. It has no workers of
its own (`parallel_workers` 0, which its documentation names for light models), no metrics server, no compression, and
logs no requests. With ROWS it joins that many requests at most by its adaptive batching.
"""

import asyncio
import sys

import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class Scorer(MLModel):
    """The graph's `logit` of its inputs."""

    async def load(self) -> bool:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Tensors to the tensor of logits."""
        feeds = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        (logit,) = self.session.run(["logit"], feeds)
        output = NumpyCodec.encode_output("logit", logit)
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])


async def main() -> None:
    """Serve until it is stopped."""
    path, name, port, grpc_port, *batch = sys.argv[1:]
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=int(port),
        grpc_port=int(grpc_port),
        parallel_workers=0,
        metrics_endpoint=None,
        gzip_enabled=False,
        load_models_at_startup=False,
    )
    joined = {"max_batch_size": int(batch[0]), "max_batch_time": 0.002} if batch else {}
    model = ModelSettings(name=name, implementation=Scorer, parameters=ModelParameters(uri=path), **joined)
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main())
