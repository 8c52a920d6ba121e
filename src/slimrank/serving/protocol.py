"""The Open Inference Protocol (KServe V2) as plain data: JSON objects to inputs, scores to JSON objects.

The REST subset with JSON tensors. Left out: the binary tensor extension, gRPC, model versions in the path.
Specification: github.com/kserve/open-inference-protocol, inference_rest.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank import __version__
from slimrank.config import InputError, nearest
from slimrank.data.encoding import Inputs
from slimrank.runtime import Model

DATATYPES: dict[str, tuple[str, type[np.generic]]] = {"ids": ("INT32", np.int32), "numbers": ("FP32", np.float32)}
DIGEST_LETTERS = 12  # of the artifact's digest, as its version


def version_of(model: Model) -> str:
    """The model's version: the beginning of the digest of the exact content it was loaded from."""
    return model.artifact.digest[:DIGEST_LETTERS]


def server_metadata() -> dict[str, Any]:
    """The answer to GET /v2."""
    return {"name": "slimrank", "version": __version__, "extensions": []}


def model_metadata(name: str, model: Model) -> dict[str, Any]:
    """The answer to GET /v2/models/{name}: tensors with their types and shapes, -1 for the number of rows."""
    return {
        "name": name,
        "versions": [version_of(model)],
        "platform": "onnx",
        "inputs": [
            {"name": each, "datatype": DATATYPES[each][0], "shape": [-1, width]}
            for each, width in widths(model).items()
        ],
        "outputs": [{"name": "logit", "datatype": "FP32", "shape": [-1]}],
    }


def widths(model: Model) -> dict[str, int]:
    """The columns of each tensor that the graph takes."""
    every = {"ids": len(model.checks.columns), "numbers": len(model.checks.numbers)}
    return {name: every[name] for name in model.feeds}


def read_request(request: Any, model: Model, max_rows: int) -> Inputs:
    """The inputs of an inference request: {"inputs": [{"name", "shape", "datatype", "data"}], ...}.

    Raises:
        TooManyRows: more rows than `max_rows`.
        InputError: the request does not have that form, or a tensor is missing, unknown or malformed.
    """
    if not isinstance(request, Mapping) or not isinstance(request.get("inputs"), list):
        raise InputError('the request must be an object with a list "inputs"')
    _check_outputs(request.get("outputs"))
    expected, arrays = widths(model), {}
    for tensor in request["inputs"]:
        name = tensor.get("name") if isinstance(tensor, Mapping) else None
        if not isinstance(name, str) or name not in expected:
            raise InputError(f"unknown input {name!r:.80}. {nearest(str(name)[:80], expected)}")
        if name in arrays:
            raise InputError(f"input {name!r} is given twice")
        arrays[name] = _tensor(tensor, name, expected[name], max_rows)
    missing = [name for name in expected if name not in arrays]
    if missing:
        raise InputError(f"inputs are missing: {', '.join(missing)}")
    rows = len(next(iter(arrays.values())))
    absent = {name: np.zeros((rows, 0), DATATYPES[name][1]) for name in DATATYPES if name not in arrays}
    return Inputs(**{**absent, **arrays})


def reply(request: Mapping[str, Any], name: str, model: Model, logits: NDArray[np.float32]) -> dict[str, Any]:
    """The answer to an inference request, with its id where it had one."""
    output = {"name": "logit", "datatype": "FP32", "shape": [len(logits)], "data": logits.tolist()}
    identity = {"id": request["id"]} if isinstance(request.get("id"), str) else {}
    return {"model_name": name, "model_version": version_of(model), **identity, "outputs": [output]}


class TooManyRows(InputError):
    """A request with more rows than the service takes at once."""


def check_rows(rows: int, max_rows: int) -> None:
    """Raise `TooManyRows` where there are more than allowed."""
    if rows > max_rows:
        raise TooManyRows(f"{rows} rows in one request, at most {max_rows} are allowed")


def _check_outputs(outputs: Any) -> None:
    if outputs is None:
        return
    if not isinstance(outputs, list) or not all(isinstance(each, Mapping) for each in outputs):
        raise InputError('"outputs" must be a list of objects')
    for each in outputs:
        if each.get("name") != "logit":
            raise InputError(
                f"unknown output {each.get('name')!r:.80}. {nearest(str(each.get('name'))[:80], ['logit'])}"
            )


def _tensor(tensor: Mapping[str, Any], name: str, width: int, max_rows: int) -> NDArray[Any]:
    datatype, dtype = DATATYPES[name]
    if tensor.get("datatype") != datatype:
        raise InputError(f"input {name!r}: datatype {tensor.get('datatype')!r:.80}, must be {datatype!r}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or any(type(n) is not int or n < 0 for n in shape):
        raise InputError(f"input {name!r}: shape {shape!r:.80}, must be [rows, {width}]")
    if shape[1] != width:
        raise InputError(f"input {name!r}: {shape[1]} columns, must be {width}")
    check_rows(shape[0], max_rows)
    if not isinstance(tensor.get("data"), list):
        raise InputError(f'input {name!r}: "data" must be a list; tensors in binary form are not taken here')
    values = _values(tensor["data"], name, dtype)
    if values.shape not in ((shape[0] * width,), (shape[0], width)):  # flat, or nested just like it
        raise InputError(f"input {name!r}: the data do not have the shape {shape}")
    return values.reshape(shape)


def _values(data: list[Any], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """The numbers in a list or list of lists, of a type that loses nothing but digits of a float."""
    try:
        values = np.array(data) if data else np.empty(0, dtype)
    except (ValueError, OverflowError):
        raise InputError(f"input {name!r}: the data are ragged") from None
    allowed = "iu" if np.issubdtype(dtype, np.integer) else "iuf"
    if values.size and values.dtype.kind not in allowed:
        raise InputError(f"input {name!r}: the data must be {'integers' if allowed == 'iu' else 'numbers'}")
    if values.size and allowed == "iu" and (values.min() < -(2**31) or values.max() >= 2**31):
        raise InputError(f"input {name!r}: a value does not fit INT32")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused with its field's name
        return values.astype(dtype)
