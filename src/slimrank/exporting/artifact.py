"""Model to artifact: graph, vocabulary, manifest and model card, written whole or not at all."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from slimrank.artifact import SEALED_KEYS, open_artifact, write_artifact
from slimrank.config import Config, InputError, name_of, runner
from slimrank.data.encoding import Encoding
from slimrank.exporting.card import model_card
from slimrank.exporting.golden import golden_of_rows
from slimrank.exporting.onnx import Onnx
from slimrank.exporting.pack import pack
from slimrank.indexing.index import Index, build_index
from slimrank.models.layers import Encoder, Network
from slimrank.models.text_encoder import TextModel


def export(
    model: Network,
    encoding: Encoding,
    path: Path,
    target: Config | None = None,
    provenance: Mapping[str, Any] | None = None,
    index: Config | None = None,
) -> None:
    """Write the artifact of `model` to the directory `path`.

    Args:
        model: in its trainable or its packed form; it is not changed.
        encoding: what the model's rows were encoded with; it is cut to the ids that the model still has, and a
            tokenizer that the model carries stands in the place of its own.
        path: the artifact's directory; an artifact that is there is replaced in one step.
        target: a registered target; ONNX by default.
        provenance: what the manifest says beside the graph: recipe, data, seeds, versions.
        index: a registered index over the items of an encoder, which is stored with the graph and is what answers; None
            for one that is made at load, exact, of what the graph says of its items.

    Raises:
        InputError: the artifact cannot be written, or the model has no vectors of items for an index.
    """
    target = target or Onnx()
    packed = pack(model)
    layout = packed.embedding.layout
    if isinstance(packed, TextModel) and packed.codec is not None:
        encoding = encoding.with_text(packed.codec)
    cut = encoding.cut(dict(zip(layout.names, layout.sizes, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        written: list[Path] = runner("target", target)(target, packed, Path(folder))
        manifest = {**(provenance or {}), "target": target.model_dump(mode="json"), **describe_graph(written[0])}
        manifest["golden"] = golden_of_rows(written[0], cut)
        files: dict[str, Path | bytes] = {file.name: file for file in written}
        files |= cut.files()
        if index is not None:
            built = index_of(packed, index)
            files |= built.files()
            manifest["index"] = built.record()
        files["README.md"] = model_card(manifest, cut).encode()
        write_artifact(path, files, manifest)


def index_of(packed: Network, config: Config) -> Index:
    """An index over the vectors of all items of a packed encoder.

    Raises:
        InputError: it has none, or the kind cannot be built of them.
    """
    if not isinstance(packed, Encoder) or packed.catalogue is None:
        raise InputError(f"index {name_of(config)!r}: the model has no vectors of items; leave it out")
    with torch.inference_mode():
        return build_index(config, packed.all_items()[packed.first_item :].numpy())


def with_metrics(
    source: Path, path: Path, metrics: Mapping[str, Any], reference: Mapping[str, Any] | None = None
) -> None:
    """Write the artifact in `source` to `path`, the same but for what was measured of it, in manifest and model card.

    Args:
        source: an artifact.
        path: where the other is written.
        metrics: quality, bytes and latency.
        reference: what scores and ids were like on the rows that were measured; None where nothing says it.

    Raises:
        InputError: `source` is not sound, or `path` cannot be written.
    """
    found = open_artifact(source)
    manifest = {key: value for key, value in found.manifest.items() if key not in SEALED_KEYS}
    manifest["metrics"] = dict(metrics)
    if reference is not None:
        manifest["reference"] = dict(reference)
    files: dict[str, Path | bytes] = dict(found.files)
    files["README.md"] = model_card(manifest, Encoding.load(source)).encode()
    write_artifact(path, files, manifest)


def describe_graph(path: Path) -> dict[str, Any]:
    """Inputs, outputs, tensors and operators of the graph at `path`, for a manifest that is read without onnx."""
    import onnx_ir as ir

    graph = ir.load(path).graph
    tensors = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    return {
        "inputs": [_signature(value) for value in graph.inputs],
        "outputs": [_signature(value) for value in graph.outputs],
        "graph": {
            "tensors": [
                {
                    "name": tensor.name,
                    "dtype": tensor.dtype.name.lower(),
                    "shape": [int(size) for size in tensor.shape.numpy()],
                    "bytes": int(tensor.nbytes),
                    "nonzero": int((tensor.numpy() != 0).sum()),
                }
                for tensor in tensors
            ],
            "operators": dict(sorted(Counter(node.op_type for node in graph).items())),
        },
    }


def _signature(value: Any) -> dict[str, Any]:
    """Name, type and shape of an input or output; a dimension that varies is its name."""
    shape = [size if isinstance(size, int) else str(size.value) for size in value.shape]
    return {"name": value.name, "dtype": value.dtype.name.lower(), "shape": shape}
