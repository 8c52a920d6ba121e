"""The Open Inference Protocol (KServe V2) as plain data: JSON objects to arrays, arrays to JSON objects.

The REST subset with JSON tensors. Left out: the binary tensor extension, gRPC, model versions in the path.
Specification: github.com/kserve/open-inference-protocol, inference_rest.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank import __version__
from slimrank.config import InputError, nearest
from slimrank.data.tensors import DTYPES, TensorSpec
from slimrank.serving.served import Arrays, Served

DATATYPES = {name: name.upper().replace("FLOAT", "FP") for name in DTYPES}
KINDS = {"b": ("b", "truth values"), "i": ("iu", "integers"), "u": ("iu", "integers"), "f": ("iuf", "numbers")}


def server_metadata() -> dict[str, Any]:
    """The answer to GET /v2."""
    return {"name": "slimrank", "version": __version__, "extensions": []}


def model_metadata(name: str, served: Served) -> dict[str, Any]:
    """The answer to GET /v2/models/{name}: tensors with their types and shapes, -1 for sizes that vary."""
    return {
        "name": name,
        "versions": [served.version],
        "platform": "onnx",
        "inputs": [_metadata(spec) for spec in served.inputs.values()],
        "outputs": [_metadata(spec) for spec in served.outputs.values()],
    }


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else -1 for size in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype.name], "shape": shape}


def read_request(request: Any, served: Served, max_rows: int) -> Arrays:
    """The arrays of an inference request: {"inputs": [{"name", "shape", "datatype", "data"}], ...}.

    Raises:
        TooManyRows: more rows than `max_rows`.
        InputError: the request does not have that form, or a tensor is missing, unknown or malformed.
    """
    if not isinstance(request, Mapping) or not isinstance(request.get("inputs"), list):
        raise InputError('the request must be an object with a list "inputs"')
    arrays: Arrays = {}
    for tensor in request["inputs"]:
        name = tensor.get("name") if isinstance(tensor, Mapping) else None
        if not isinstance(name, str) or name not in served.inputs:
            raise InputError(f"unknown input {name!r:.80}. {nearest(str(name)[:80], served.inputs)}")
        if name in arrays:
            raise InputError(f"input {name!r} is given twice")
        arrays[name] = _tensor(tensor, served.inputs[name], served.rows, max_rows)
    missing = [name for name in served.inputs if name not in arrays]
    if missing:
        raise InputError(f"inputs are missing: {', '.join(missing)}")
    return arrays


def reply(
    request: Mapping[str, Any], name: str, served: Served, answers: Arrays, asked: Sequence[str]
) -> dict[str, Any]:
    """The answer to an inference request: the outputs `asked` for, with its id where it had one.

    Raises:
        Unsayable: an answer is NaN or infinite, which JSON has no word for.
    """
    for each in asked:
        if answers[each].dtype.kind == "f" and not np.isfinite(answers[each]).all():
            raise Unsayable(f"output {each!r} is NaN or infinite, which JSON cannot say")
    outputs = [
        {
            "name": each,
            "datatype": DATATYPES[answers[each].dtype.name],
            "shape": list(answers[each].shape),
            "data": answers[each].ravel().tolist(),
        }
        for each in asked
    ]
    identity = {"id": request["id"]} if isinstance(request.get("id"), str) else {}
    return {"model_name": name, "model_version": served.version, **identity, "outputs": outputs}


class TooManyRows(InputError):
    """A request with more rows than the service takes at once."""


class Unsayable(Exception):
    """An answer that no reply can hold: a fault of the model, and none of the request."""


def check_rows(rows: int, max_rows: int) -> None:
    """Raise `TooManyRows` where there are more than allowed."""
    if rows > max_rows:
        raise TooManyRows(f"{rows} rows in one request, at most {max_rows} are allowed")


def asked_outputs(request: Any, served: Served) -> list[str]:
    """The names of the outputs that a request asks for, all by default.

    Raises:
        InputError: it asks for none that there is.
    """
    outputs = request.get("outputs") if isinstance(request, Mapping) else None
    if not outputs and (outputs is None or isinstance(outputs, list)):
        return list(served.outputs)
    if not isinstance(outputs, list) or not all(isinstance(each, Mapping) for each in outputs):
        raise InputError('"outputs" must be a list of objects')
    names = [each.get("name") for each in outputs]
    for each in names:
        if not isinstance(each, str) or each not in served.outputs:
            raise InputError(f"unknown output {each!r:.80}. {nearest(str(each)[:80], served.outputs)}")
    return names


def _tensor(tensor: Mapping[str, Any], spec: TensorSpec, rows: str, max_rows: int) -> NDArray[Any]:
    """A tensor of a request; `rows` is what the axis of rows is called."""
    where, datatype = f"input {spec.name!r}", DATATYPES[spec.dtype.name]
    if tensor.get("datatype") != datatype:
        raise InputError(f"{where}: datatype {tensor.get('datatype')!r:.80}, must be {datatype!r}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not _fits(shape, spec):
        raise InputError(f"{where}: shape {shape!r:.80}, must be {spec.told()}")
    if spec.shape[:1] == (rows,):
        check_rows(shape[0], max_rows)
    if not isinstance(tensor.get("data"), list):
        raise InputError(f'{where}: "data" must be a list; tensors in binary form are not taken here')
    values = _values(tensor["data"], where, spec.dtype)
    if values.shape not in ((math.prod(shape),), tuple(shape)):  # flat, or nested just like it
        raise InputError(f"{where}: the data do not have the shape {shape}")
    try:
        return values.reshape(shape)
    except ValueError:  # sizes whose product no array can have
        raise InputError(f"{where}: shape {shape!r:.80} is too large") from None


def _fits(shape: list[Any], spec: TensorSpec) -> bool:
    """Whether a shape is one of sizes, and those that do not vary are the graph's."""
    return len(shape) == len(spec.shape) and all(
        type(size) is int and 0 <= size < 2**31 and (isinstance(wanted, str) or size == wanted)
        for size, wanted in zip(shape, spec.shape, strict=True)
    )


def _values(data: list[Any], where: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The numbers in a list or list of lists, of a type that loses nothing but digits of a float."""
    try:
        values = np.array(data) if data else np.empty(0, dtype)
    except (ValueError, OverflowError):
        raise InputError(f"{where}: the data are ragged") from None
    allowed, told = KINDS[dtype.kind]
    if values.size and values.dtype.kind not in allowed:
        raise InputError(f"{where}: the data must be {told}")
    if values.size and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise InputError(f"{where}: a value does not fit {DATATYPES[dtype.name]}")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused with its field's name
        return values.astype(dtype)
