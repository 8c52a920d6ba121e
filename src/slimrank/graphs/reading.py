"""A graph from its file, checked before anything is done with it: whole, of a known opset, its data where it belongs.

Nothing of the data beside the file is read here. Operators and domains that are not known are no fault: what a step
does not recognise it leaves alone, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes import common

from slimrank.config import InputError, nearest
from slimrank.data.tensors import TensorSpec

LEAST_OPSET = 13  # DequantizeLinear with a scale for each output


def read_proto(path: Path) -> onnx.ModelProto:
    """The model in the file at `path`, without the data of tensors that lies beside it.

    Raises:
        InputError: no such file, truncated, no ONNX model, or a tensor has not as many bytes as its shape says.
    """
    if not path.is_file():
        beside = [each.name for each in path.parent.glob("*.onnx")] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file. {nearest(path.name, beside) if beside else ''}".rstrip())
    try:
        proto = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{path}: truncated, or no ONNX file ({path.stat().st_size:,} bytes): {error}") from None
    if not proto.graph.node or not proto.opset_import:
        raise InputError(f"{path}: no ONNX file with a graph ({path.stat().st_size:,} bytes)")
    return proto


def graph_of(proto: onnx.ModelProto, path: Path) -> ir.Model:
    """The graph of `proto`, read from `path`, with constants as initialisers; data beside the file stays there.

    Raises:
        InputError: a tensor's data is missing, outside of the file's folder, or too short; all are named.
    """
    maps = _maps_of(proto)
    _set_types(proto, dict.fromkeys(maps))
    try:
        model = ir.from_proto(proto)
    finally:
        _set_types(proto, maps)
    folder = path.resolve().parent
    ir.external_data.set_base_dir(model.graph, folder)
    faults = [fault for tensor in tensors_of(model) if (fault := _fault(tensor, folder))]
    if faults:
        raise InputError("\n".join(f"{path}: {fault}" for fault in faults))
    common.LiftConstantsToInitializersPass()(model)
    return model


def inputs_of(graph: onnx.GraphProto) -> list[TensorSpec]:
    """The inputs that have to be fed: those that are not constants as well.

    Raises:
        InputError: one of them is no tensor of numbers.
    """
    known = {tensor.name for tensor in graph.initializer}
    found = []
    for value in graph.input:
        if value.name in known:
            continue
        kind = value.type.tensor_type
        if kind.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            raise InputError(f"input {value.name!r} is no tensor of numbers, and cannot be fed from rows")
        sizes = [each.dim_value if each.HasField("dim_value") else each.dim_param or None for each in kind.shape.dim]
        found.append(TensorSpec.of(value.name, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type), sizes))
    return found


def _maps_of(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """Types of the values that are maps, or sequences of them, as a ZipMap gives; onnx_ir has none such."""
    found = {}
    for value in (*proto.graph.output, *proto.graph.value_info):
        inner = value.type.sequence_type.elem_type if value.type.HasField("sequence_type") else value.type
        if inner.HasField("map_type"):
            found[value.name] = onnx.TypeProto.FromString(value.type.SerializeToString())
    return found


def _set_types(proto: onnx.ModelProto, types: Mapping[str, onnx.TypeProto | None]) -> None:
    """The types of the values of that name, None for no type."""
    for value in (*proto.graph.output, *proto.graph.value_info):
        if value.name in types:
            kind = types[value.name]
            value.ClearField("type")
            if kind is not None:
                value.type.CopyFrom(kind)


def keep_maps(source: onnx.ModelProto, path: Path) -> None:
    """Outputs of the graph at `path` that are maps in `source` have their types again, which onnx_ir does not write."""
    if maps := _maps_of(source):
        proto = onnx.load(path, load_external_data=False)
        _set_types(proto, maps)
        path.write_bytes(proto.SerializeToString())


def tensors_of(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """The content of every initialiser, those of subgraphs as well."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value


def lies_beside(model: ir.Model) -> bool:
    """Whether the content of a tensor lies in a file of its own."""
    return any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors_of(model))


def opset_of(model: ir.Model) -> int:
    """The version of the standard operators."""
    return int(model.opset_imports.get("", 0))


def at_least_opset(proto: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, str]:
    """`proto`, converted where its opset lacks a scale for each output, and what was done, or nothing.

    Raises:
        InputError: an operator of the graph cannot be converted.
    """
    found = next((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), 0)
    if found >= LEAST_OPSET or found == 0:
        return proto, ""
    from onnx import version_converter

    try:
        converted = version_converter.convert_version(proto, LEAST_OPSET)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{path}: opset {found} has no DequantizeLinear with a scale for each output, which {LEAST_OPSET} has, "
            f"and the graph does not convert: {error}"
        ) from None
    return converted, f"opset {found} to {LEAST_OPSET}: DequantizeLinear has a scale for each output from there on"


def _fault(tensor: ir.TensorProtocol, folder: Path) -> str:
    """Why the content of a tensor cannot be read, or nothing."""
    if isinstance(tensor, ir.ExternalTensor):
        return _fault_outside(tensor, folder)
    proto = getattr(tensor, "raw", None)
    if isinstance(proto, onnx.TensorProto) and proto.HasField("raw_data") and len(proto.raw_data) != tensor.nbytes:
        return f"{tensor.name}: {len(proto.raw_data):,} bytes, its shape needs {tensor.nbytes:,}"
    return ""


def _fault_outside(tensor: ir.ExternalTensor, folder: Path) -> str:
    """The same of a tensor whose data lies in another file. ONNX Runtime and onnx_ir refuse the same files."""
    place = Path(os.path.normpath(folder / tensor.location))
    resolved = place.resolve()
    if not (place.is_relative_to(folder) and resolved.is_relative_to(folder)):
        return f"{tensor.name}: its data {os.fspath(tensor.location)!r} is outside of the model's folder"
    if not resolved.is_file():
        return f"{tensor.name}: its data {os.fspath(tensor.location)!r} is not there"
    held = resolved.stat()
    if held.st_nlink > 1:
        return f"{tensor.name}: its data {os.fspath(tensor.location)!r} has several hard links, which no runtime opens"
    end = (tensor.offset or 0) + tensor.nbytes
    if (tensor.length or tensor.nbytes) != tensor.nbytes:
        return f"{tensor.name}: {tensor.length:,} bytes of data, its shape needs {tensor.nbytes:,}"
    return f"{tensor.name}: its data ends at byte {end:,} of a file of {held.st_size:,}" if end > held.st_size else ""
