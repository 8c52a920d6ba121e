"""The Open Inference Protocol (KServe V2) as plain data: JSON objects to arrays, arrays to JSON objects.

Tensors are lists in the JSON, or stand behind it as bytes (the binary extension of Triton's protocol, which its client
uses by default): little-endian, row-major, as many as the tensor's `binary_data_size`.
Specification: github.com/kserve/open-inference-protocol, inference_rest.yaml; triton-inference-server/server,
docs/protocol/extension_binary_data.md. Left out: shared memory, and BYTES tensors, which no graph of ours takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank import __version__
from slimrank.config import InputError, nearest
from slimrank.data.tensors import DTYPES, TensorSpec
from slimrank.serving.bounds import check_rows
from slimrank.serving.served import Arrays, Served

DATATYPES = {name: name.upper().replace("FLOAT", "FP") for name in DTYPES}
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics", "ranking")
KINDS = {"b": ("b", "truth values"), "i": ("iu", "integers"), "u": ("iu", "integers"), "f": ("iuf", "numbers")}
NUMBERS = {bool, int, float}
NOTHING = memoryview(b"")


class Unsayable(Exception):
    """An answer that no reply can hold: numbers of the request are too large, or the model is at fault."""


def server_metadata() -> dict[str, Any]:
    """The answer to GET /v2."""
    return {"name": "slimrank", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, versions: Sequence[str], served: Served) -> dict[str, Any]:
    """The answer to GET /v2/models/{name}: tensors with their types and shapes, -1 for sizes that vary."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": "onnxruntime_onnx",
        "inputs": [_metadata(spec) for spec in served.inputs.values()],
        "outputs": [_metadata(spec) for spec in served.outputs.values()],
    }


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype.name], "shape": sizes_of(spec)}


def sizes_of(spec: TensorSpec) -> list[int]:
    """The sizes of a tensor, -1 for those that vary."""
    return [size if isinstance(size, int) else -1 for size in spec.shape]


def read_request(request: Any, served: Served, max_rows: int, binary: memoryview = NOTHING) -> Arrays:
    """The arrays of an inference request: {"inputs": [{"name", "shape", "datatype", "data"}], ...}.

    Args:
        request: the JSON of a body.
        served: what takes it.
        max_rows: of one request.
        binary: what stands behind the JSON, for tensors that have a "binary_data_size" in the place of "data".

    Raises:
        TooMany: more rows than `max_rows`.
        InputError: the request does not have that form, a tensor is missing, unknown or malformed, or the bytes are
            not as many as the tensors say.
    """
    if not isinstance(request, Mapping) or not isinstance(request.get("inputs"), list):
        raise InputError('the request must be an object with a list "inputs"')
    arrays: Arrays = {}
    start = 0
    for tensor in request["inputs"]:
        name = tensor.get("name") if isinstance(tensor, Mapping) else None
        spec = input_named(name, served, arrays)
        shape = checked_shape(spec, tensor.get("datatype"), tensor.get("shape"), served.rows, max_rows)
        size = _binary_size(tensor, spec.name)
        if size is None:
            arrays[spec.name] = _listed(tensor, spec, shape)
        else:
            arrays[spec.name] = tensor_of(binary[start : start + size], spec, shape, size)
            start += size
    if start != len(binary):
        raise InputError(f"{len(binary)} bytes stand behind the JSON, its tensors say {start}")
    check_whole(arrays, served)
    return arrays


def input_named(name: Any, served: Served, given: Arrays) -> TensorSpec:
    """The input of that name. Raises `InputError` where there is none, or it was given before."""
    if not isinstance(name, str) or name not in served.inputs:
        raise InputError(f"unknown input {name!r:.80}. {nearest(str(name)[:80], served.inputs)}")
    if name in given:
        raise InputError(f"input {name!r} is given twice")
    return served.inputs[name]


def check_whole(arrays: Arrays, served: Served) -> None:
    """Raises `InputError` where an input is missing."""
    missing = [name for name in served.inputs if name not in arrays]
    if missing:
        raise InputError(f"inputs are missing: {', '.join(missing)}")


def checked_shape(spec: TensorSpec, datatype: Any, shape: Any, rows: str, max_rows: int) -> list[int]:
    """The shape of a tensor of a request; `rows` is what the axis of rows is called.

    Raises:
        TooMany: more rows than `max_rows`.
        InputError: another type or shape than the input has.
    """
    where, wanted = f"input {spec.name!r}", DATATYPES[spec.dtype.name]
    if datatype != wanted:
        raise InputError(f"{where}: datatype {datatype!r:.80}, must be {wanted!r}")
    if not isinstance(shape, list) or not _fits(shape, spec):
        raise InputError(f"{where}: shape {shape!r:.80}, must be {spec.told()}")
    if spec.shape[:1] == (rows,):
        check_rows(shape[0], max_rows)
    return shape


def _fits(shape: list[Any], spec: TensorSpec) -> bool:
    """Whether a shape is one of sizes, and those that do not vary are the graph's."""
    return len(shape) == len(spec.shape) and all(
        type(size) is int and 0 <= size < 2**31 and (isinstance(wanted, str) or size == wanted)
        for size, wanted in zip(shape, spec.shape, strict=True)
    )


def tensor_of(data: memoryview | bytes, spec: TensorSpec, shape: list[int], size: int) -> NDArray[Any]:
    """A tensor from `size` bytes, which are as many as its shape needs.

    Raises:
        InputError: they are not, or fewer are there, or they are no truth values where these are wanted.
    """
    needed = math.prod(shape) * spec.dtype.itemsize
    if size != needed or len(data) != size:
        raise InputError(f"input {spec.name!r}: {min(size, len(data))} bytes for the shape {shape}, must be {needed}")
    if spec.dtype.kind == "b" and size and np.frombuffer(data, np.uint8).max() > 1:
        raise InputError(f"input {spec.name!r}: a truth value is a byte 0 or 1")
    flat = np.frombuffer(data, spec.dtype.newbyteorder("<")).astype(spec.dtype, copy=False)
    return reshaped(flat, spec, shape)


def _binary_size(tensor: Mapping[str, Any], name: str) -> int | None:
    """How many bytes behind the JSON are a tensor's, None where it has its data itself."""
    size = parameter(tensor, "binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise InputError(f"input {name!r}: binary_data_size is {size!r:.80}, must be a number of bytes")
    if "data" in tensor:
        raise InputError(f'input {name!r}: has both "data" and a binary_data_size')
    return size


def _listed(tensor: Mapping[str, Any], spec: TensorSpec, shape: list[int]) -> NDArray[Any]:
    """A tensor whose numbers stand in the JSON."""
    where = f"input {spec.name!r}"
    if not isinstance(tensor.get("data"), list):
        raise InputError(f'{where}: "data" must be a list, or its bytes stand behind the JSON (binary_data_size)')
    values = _values(tensor["data"], where, spec.dtype)
    if values.shape not in ((math.prod(shape),), tuple(shape)):  # flat, or nested just like it
        raise InputError(f"{where}: the data do not have the shape {shape}")
    return reshaped(values, spec, shape)


def reshaped(flat: NDArray[Any], spec: TensorSpec, shape: list[int]) -> NDArray[Any]:
    """Raises `InputError` for sizes whose product no array can have, though one of them is 0."""
    try:
        return flat.reshape(shape)
    except ValueError:
        raise InputError(f"input {spec.name!r}: shape {shape!r:.80} is too large") from None


def _values(data: list[Any], where: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The numbers in a list or list of lists, of a type that loses nothing but digits of a float."""
    allowed, told = KINDS[dtype.kind]
    if not _numbers_only(data):  # of text an array would be made whose every place is as long as the longest
        raise InputError(f"{where}: the data must be {told}")
    try:
        values = np.array(data) if data else np.empty(0, dtype)
    except (ValueError, OverflowError):
        raise InputError(f"{where}: the data are ragged") from None
    if values.size and values.dtype.kind not in allowed:
        raise InputError(f"{where}: the data must be {told}")
    if values.size and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise InputError(f"{where}: a value does not fit {DATATYPES[dtype.name]}")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused with its field's name
        return values.astype(dtype)


def _numbers_only(data: list[Any]) -> bool:
    """Whether lists of lists hold nothing but numbers and truth values."""
    kinds = set(map(type, data))
    nested = list in kinds
    return kinds <= NUMBERS | {list} and (not nested or all(_numbers_only(each) for each in data if type(each) is list))


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
    return named_outputs([each.get("name") for each in outputs], served)


def named_outputs(names: Sequence[Any], served: Served) -> list[str]:
    """The names, each of which must be an output's; all outputs where there are none.

    Raises:
        InputError: one is not.
    """
    for each in names:
        if not isinstance(each, str) or each not in served.outputs:
            raise InputError(f"unknown output {each!r:.80}. {nearest(str(each)[:80], served.outputs)}")
    return list(names) or list(served.outputs)


def parameter(holder: Any, name: str) -> Any:
    """A parameter of a request or of a tensor, None where it has none."""
    parameters = holder.get("parameters") if isinstance(holder, Mapping) else None
    return parameters.get(name) if isinstance(parameters, Mapping) else None


def reply(
    request: Mapping[str, Any], name: str, version: str, answers: Arrays, asked: Sequence[str]
) -> tuple[dict[str, Any], list[bytes]]:
    """The answer to an inference request: the outputs `asked` for, with its id where it had one.

    Returns:
        The JSON, and what stands behind it: the bytes of the outputs that are wanted as such.

    Raises:
        Unsayable: an answer is NaN or infinite, which JSON has no word for.
    """
    as_bytes = _wanted_as_bytes(request)
    outputs, behind = [], []
    for each in asked:
        array = answers[each]
        told: dict[str, Any] = {"name": each, "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}
        if as_bytes(each):
            behind.append(bytes_of(array))
            told["parameters"] = {"binary_data_size": len(behind[-1])}
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Unsayable(f"output {each!r} is NaN or infinite, which JSON cannot say")
        else:
            told["data"] = array.ravel().tolist()
        outputs.append(told)
    identity = {"id": request["id"]} if isinstance(request.get("id"), str) else {}
    return {"model_name": name, "model_version": version, **identity, "outputs": outputs}, behind


def bytes_of(array: NDArray[Any]) -> bytes:
    """A tensor as bytes: little-endian, row-major."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _wanted_as_bytes(request: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether an output is wanted as bytes: by its own parameter, else by the request's."""
    every = parameter(request, "binary_data_output") is True
    own = {each.get("name"): parameter(each, "binary_data") for each in request.get("outputs") or ()}
    return lambda name: every if own.get(name) is None else own[name] is True
