"""The deployment target `ort`: a model for ONNX Runtime Mobile, with what a build of it needs to hold.

    model.ort  required_operators.config  required_operators_and_types.config  checks.json

The graph is optimised as far as every processor runs it, and kept so. Bits of packed tables are taken apart after the
lookup, since what hangs on constants alone would be stored unpacked. Left out: layouts of one kind of processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from slimrank.config import Config, InputError, register
from slimrank.deploying.asking import check_answers, golden_feeds, write_checks
from slimrank.runtime import Graph
from slimrank.runtime.opened import Opened

MODEL = "model.ort"
OPERATORS = "required_operators.config"
TYPES = "required_operators_and_types.config"
MOST_BYTES = (1 << 31) - (1 << 20)  # of a flatbuffer, which has offsets of 32 bits with a sign


class Ort(Config):
    """A model for ONNX Runtime Mobile: `model.ort`, and the operators and types that a reduced build has to have.

    Attributes:
        level: how far the graph is optimised before it is kept; `extended` joins layers to ONNX Runtime's own
            operators, `basic` stays with standard ones.
    """

    name: Literal["ort"] = "ort"
    level: Literal["basic", "extended"] = "extended"


@register("deployment target", Ort)
def write_ort(config: Ort, opened: Opened | Graph, name: str, folder: Path) -> None:
    """Write the model to the empty `folder`, and ask it the golden rows.

    Raises:
        InputError: it is larger than the format holds; ONNX Runtime has no operator for a node in this format, or
            answers with something else than the artifact does.
    """
    size = sum(path.stat().st_size for file, path in opened.artifact.files.items() if file.startswith("model.onnx"))
    if size > MOST_BYTES:
        raise InputError(f"ort: the model has {size:,} bytes; its format holds {MOST_BYTES:,}, in one file")
    _convert(config, opened.artifact.files["model.onnx"], folder / MODEL)
    _write_operators(folder)
    write_checks(opened, folder, {"bytes": {"model": (folder / MODEL).stat().st_size, "artifact": size}})
    feeds = golden_feeds(opened)
    if feeds is not None:
        check_answers(opened, feeds, run_ort(config, folder, feeds), "ort")


@register("deployed", Ort)
def run_ort(config: Ort, folder: Path, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs of the folder's model for tensors by name, as ONNX Runtime gives them on one thread.

    Raises:
        InputError: ONNX Runtime cannot load it, or does not answer.
    """
    session = _session(folder / MODEL)
    names = [each.name for each in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))
    except Exception as error:  # the runtime's errors share no other base class
        raise InputError(f"{folder / MODEL}: does not answer: {error}") from error


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says of a model that it does not load is in the error
    options.add_session_config_entry("session.load_model_format", "ORT")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base class
        raise InputError(f"{path}: ONNX Runtime cannot run it in this format: {error}") from error


def _convert(config: Ort, source: Path, path: Path) -> None:
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = getattr(levels, f"ORT_ENABLE_{config.level.upper()}")
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(source.parent))
    try:
        onnxruntime.InferenceSession(_looked_up_first(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base class
        raise InputError(f"ort: ONNX Runtime cannot convert it: {error}") from error


def _write_operators(folder: Path) -> None:
    """The operators of the model, and their types, as ONNX Runtime's reduced build reads them."""
    import logging
    import warnings

    from onnxruntime.tools.ort_format_model import create_config_from_models

    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
    for file, with_types in ((OPERATORS, False), (TYPES, True)):
        with warnings.catch_warnings():  # it leaves the model's file to be closed by whoever finds it
            warnings.simplefilter("ignore", ResourceWarning)
            create_config_from_models([folder / MODEL], folder / file, with_types)
        text = (folder / file).read_text(encoding="utf-8")
        (folder / file).write_text(text.replace(str(folder / MODEL), MODEL), encoding="utf-8")  # no machine's paths


BY_ROW = frozenset({"BitShift", "BitwiseAnd", "BitwiseOr", "Cast", "Concat"})


def _looked_up_first(source: Path) -> bytes:
    """The graph at `source` with the bits of packed tables taken apart after each lookup, of its rows alone."""
    try:
        import onnx
    except ImportError:
        raise InputError("--target ort rewrites graphs with onnx: `pip install 'slimrank[edge]'`") from None
    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    _check_types(graph)
    tables = {each.name: len(each.dims) for each in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    nodes: list[Any] = []

    def by_row(name: str) -> bool:
        node = made.get(name)
        if node is None or node.op_type not in BY_ROW:
            return tables.get(name, 0) > 1
        axis = next((each.i for each in node.attribute if each.name == "axis"), -1)
        return axis == -1 and all(by_row(each) or tables.get(each) == 0 for each in node.input)

    def of_rows(name: str, gather: Any) -> str:
        """`name` of the rows that `gather` looks up, under a name of its own."""
        if tables.get(name) == 0:
            return name
        found, node = f"{gather.output[0]}.{name}", made.get(name)
        if any(found in each.output for each in nodes):
            return found
        if node is None:
            nodes.append(onnx.helper.make_node("Gather", [name, gather.input[1]], [found]))
        else:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.ClearField("input")
            copy.input.extend([of_rows(each, gather) for each in node.input])
            copy.output[0] = found
            nodes.append(copy)
        return found

    for node in graph.node:
        axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
        if node.op_type == "Gather" and axis == 0 and node.input[0] in made and by_row(node.input[0]):
            of_rows(node.input[0], node)
            nodes[-1].output[0] = node.output[0]
        else:
            nodes.append(node)
    kept = _needed(nodes, {each.name for each in graph.output})
    graph.ClearField("node")
    graph.node.extend(kept)
    content: bytes = model.SerializeToString()
    return content


def _check_types(graph: Any) -> None:
    """Refuse what ONNX Runtime writes in this format and then does not load: tensors of fewer than eight bits."""
    import onnx

    narrow = {"INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1"}
    for each in graph.initializer:
        kind = onnx.TensorProto.DataType.Name(each.data_type)
        if kind in narrow:
            users = [node.op_type for node in graph.node if each.name in node.input]
            told = f"operator {users[0]} of {each.name!r}" if users else repr(each.name)
            raise InputError(
                f"ort: missing there: {told}, type {kind}, which ONNX Runtime does not load from a .ort file"
            )


def _needed(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """The nodes that `wanted` values hang on, in their order."""
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted = wanted | set(node.input)
            kept.append(node)
    return kept[::-1]
