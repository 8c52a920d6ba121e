"""The deployment target `web`: a folder for any static host, which ranks in the browser of whoever opens it.

    model.onnx  [model.onnx.data]  encoding.json  slimrank-web.json  slimrank.js and its modules, with types
    index.html (a demo page)  page.json  ask.mjs (the same from a terminal, with Node)  [ort/]  and FILE.br

It is a small npm package too, around onnxruntime-web. `slimrank-web.json` holds size and sha256 of every file, the
artifact's golden rows, and a seal over itself; the module checks all of it before it ranks. Left out: models of texts
(no tokenizer runs there), models that are asked by tensors (they know no rows), and stored indexes of vectors.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.resources import files as package_files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, field_validator

from slimrank import __version__
from slimrank.config import Config, InputError, register
from slimrank.deploying.demo import demo_page, page_json
from slimrank.deploying.encoding import ENCODING, encoding_json
from slimrank.runtime import Graph
from slimrank.runtime.golden import ROUNDING, golden_of
from slimrank.runtime.opened import Opened
from slimrank.runtime.retriever import Retriever

MANIFEST = "slimrank-web.json"
FORMAT = 1
GRAPH = "model.onnx"
PACKAGE = "browser"  # the folder of the module's sources, beside this file
RUNTIMES = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": (
        "ort.webgpu.min.mjs",
        "ort-wasm-simd-threaded.asyncify.mjs",
        "ort-wasm-simd-threaded.asyncify.wasm",
    ),
}
MODULES = ("encoding.js", "files.js", "slimrank.js", "tensors.js", "values.js", "worker.js", "remote.js")
SCRIPTS = ("remote.js", "values.js", "demo.js")  # of the page itself; the others are its worker's
HOW = "`npm install onnxruntime-web` puts them into node_modules/onnxruntime-web/dist"
BEST, WORSE, LARGE = 11, 9, 8 << 20  # brotli's quality, and bytes from which on the best takes too long
NO_RUNTIME = 3  # exit status of ask.mjs where onnxruntime-web is not found

NameOnly = PlainSerializer(
    lambda value: None if value is None else Path(value).name
)  # a record holds no machine's paths


class Web(Config):
    """A page and a module for the browser: ranks on static hosts with onnxruntime-web, and checks every file.

    Attributes:
        runtime: what runs the graph: a folder with the dist files of onnxruntime-web, which are copied to `ort/`, or
            the URL of one. Empty: they are to be put into `ort/` by hand.
        webgpu: whether the runtime for WebGPU is copied as well; a browser reads it only where it is asked for.
        examples: rows, .parquet or .csv, for the demo page: a user for each value of the schema's group. None: rows are
            made of the most frequent values.
        candidates: columns of the examples that are of what is ranked. Empty: those that differ within a user.
        title: the column of the examples that a person knows a candidate by.
    """

    name: Literal["web"] = "web"
    runtime: Annotated[str, PlainSerializer(lambda value: value if is_url(value) else Path(value).name)] = ""
    webgpu: bool = True
    examples: Annotated[Path | None, NameOnly] = None
    candidates: tuple[str, ...] = ()
    title: str | None = None

    @field_validator("examples")
    @classmethod
    def _is_a_table(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix not in (".parquet", ".csv"):
            raise ValueError(f"examples must be a .parquet or .csv file, got {value.name!r}")
        return value


def is_url(runtime: str) -> bool:
    """Whether the runtime is fetched from elsewhere."""
    return runtime.startswith(("https://", "http://"))


@register("deployment target", Web)
def write_web(config: Web, opened: Opened | Graph, name: str, folder: Path) -> None:
    """Write the static folder of the model `name` to the empty `folder`.

    Raises:
        InputError: the model is one of texts, is asked by tensors, or gives vectors without a catalogue; the runtime's
            files or the examples are not there or not as they must be; brotli is not installed.
    """
    model = _supported(opened)
    compress = _brotli()
    shown = page_json(config.examples, config.candidates, config.title, model, name)
    for file, source in model.artifact.files.items():
        if file in (GRAPH, f"{GRAPH}.data"):
            shutil.copyfile(source, folder / file)
    (folder / ENCODING).write_bytes(encoding_json(model.encoding, model.artifact.digest))
    (folder / "page.json").write_bytes(shown)
    for file, content in package().items():
        (folder / file).write_bytes(content)
    runtime = _runtime(config, folder)
    listed = {str(each.relative_to(folder)): each for each in sorted(folder.rglob("*")) if each.is_file()}
    (folder / MANIFEST).write_bytes(sealed(_manifest(model, name, runtime, listed)))
    checked = {file: listed[file].read_bytes() for file in (*SCRIPTS, "page.json")}
    page = demo_page((folder / "index.html").read_text(encoding="utf-8"), name, checked, config.runtime)
    (folder / "index.html").write_text(page, encoding="utf-8")
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix not in (".md", ".mjs", ".ts") and path.name != "package.json":
            _write_compressed(path, compress)


def package() -> dict[str, bytes]:
    """The module's files by name, as they are served: without comments and indentation."""
    found = {}
    for each in (package_files(__package__) / PACKAGE).iterdir():
        content = each.read_bytes()
        if each.name.endswith(".js"):
            content = _bare(content.decode()).encode()
        elif each.name == "package.json":
            content = content.replace(b'"version": "0.0.0"', f'"version": "{__version__}"'.encode())
        found[each.name] = content
    return found


def _bare(source: str) -> str:
    """JavaScript of ours without comments that have lines of their own, and without indentation."""
    source = re.sub(r"^\s*/\*\*(?:(?!\*/).)*\*/\s*$", "", source, flags=re.MULTILINE | re.DOTALL)
    source = re.sub(r"^\s*//.*$", "", source, flags=re.MULTILINE)
    return re.sub(r"^\s+", "", source, flags=re.MULTILINE)


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as JSON that ends with the sha256 of all bytes before it, so that a changed byte is found."""
    text = json.dumps(manifest, ensure_ascii=False, allow_nan=False, separators=(",", ":"))[:-1].encode()
    return text + f',"seal":"{hashlib.sha256(text).hexdigest()}"}}\n'.encode()


def _supported(opened: Opened | Graph) -> Opened:
    """The model, if the browser can ask it.

    Raises:
        InputError: it cannot.
    """
    where = opened.artifact.path
    if isinstance(opened, Graph):
        raise InputError(f"{where}: is asked by tensors, and a page has rows; a model that is asked by rows is needed")
    if texts := opened.encoding.schema.texts:
        raise InputError(f"{where}: field {texts[0].name!r} is text, and no tokenizer runs in the browser")
    if "vector" in opened.outputs and "item_vector" not in opened.outputs:
        raise InputError(f"{where}: gives vectors of queries and none of items, so that a page cannot search")
    if isinstance(opened, Retriever):
        _ = opened.items  # refuses one without a catalogue of values
    return opened


def _manifest(model: Opened, name: str, runtime: Mapping[str, Any], listed: Mapping[str, Path]) -> dict[str, Any]:
    golden = golden_of(model.artifact)
    told = {"inputs": {}, "outputs": {}, "none": "exported by a release that wrote none"}
    operators = model.artifact.manifest["graph"]["operators"]
    return {
        "format": FORMAT,
        "name": name,
        "artifact": model.artifact.digest,
        "slimrank": __version__,
        "answers": next(each for each in ("logit", "scores", "vector") if each in model.outputs),
        "any_length": model.any_length,
        "rounds": not ROUNDING.isdisjoint(operators),
        "graph": GRAPH,
        "data": f"{GRAPH}.data" if f"{GRAPH}.data" in listed else None,
        "inputs": list(model.feeds),
        "outputs": list(model.outputs),
        "golden": told if golden is None else {"none": golden.none, **golden.model_dump(mode="json")},
        "runtime": runtime,
        "modules": [*MODULES, *(["finder.js"] if "logit" not in model.outputs else [])],
        "files": {file: _record(path) for file, path in listed.items() if file != "index.html"},
    }


def _record(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _runtime(config: Web, folder: Path) -> dict[str, Any]:
    """Where the runtime's files are, by what it runs on; those of a folder are copied.

    Raises:
        InputError: the folder has them not.
    """
    kinds = [kind for kind in RUNTIMES if kind == "wasm" or config.webgpu]
    copied = bool(config.runtime) and not is_url(config.runtime)
    if copied:
        source, target = Path(config.runtime), folder / "ort"
        target.mkdir()
        for file in (file for kind in kinds for file in RUNTIMES[kind]):
            if not (source / file).is_file():
                raise InputError(f"runtime: {source} has no {file} of onnxruntime-web; {HOW}")
            shutil.copyfile(source / file, target / file)
    base = config.runtime.rstrip("/") if is_url(config.runtime) else "ort"
    places = {
        kind: {key: f"{base}/{file}" for key, file in zip(("module", "loader", "wasm"), RUNTIMES[kind], strict=True)}
        for kind in kinds
    }
    return {"webgpu": None, **{kind: {**found, "verified": copied} for kind, found in places.items()}}


def _brotli() -> Any:
    try:
        import brotli
    except ModuleNotFoundError:
        raise InputError("--target web compresses with brotli: `pip install 'slimrank[edge]'`") from None
    return brotli


def _write_compressed(path: Path, brotli: Any) -> None:
    """FILE.br beside a file, for hosts that serve what is compressed already; not where little is won."""
    content = path.read_bytes()
    found = brotli.compress(content, quality=BEST if len(content) < LARGE else WORSE)
    if len(found) < 0.95 * len(content):
        path.with_name(f"{path.name}.br").write_bytes(found)


@register("deployed", Web)
def run_web(config: Web, folder: Path, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs of the folder's graph for tensors by name, as onnxruntime-web in Node gives them.

    Raises:
        InputError: Node or onnxruntime-web is not there, or the folder is damaged or does not answer.
    """
    node = shutil.which("node")
    if node is None:
        raise InputError(
            "what is in a web folder is asked with Node, which is not installed (node, version 20 or later)"
        )
    asked = {name: _to_json(array) for name, array in feeds.items()}
    command = [node, str(folder / "ask.mjs"), "--tensors"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode == NO_RUNTIME:
        raise InputError(f"{folder}: {done.stderr.strip()}")
    if done.returncode:
        raise InputError(f"{folder}: onnxruntime-web in Node: {done.stderr.strip()[-2000:]}")
    return {name: _from_json(each) for name, each in json.loads(done.stdout).items()}


def _to_json(array: NDArray[Any]) -> dict[str, Any]:
    plain = np.ascontiguousarray(array)
    data = base64.b64encode(plain.tobytes()).decode()
    return {"dtype": plain.dtype.name, "shape": list(array.shape), "data": data}


def _from_json(found: Mapping[str, Any]) -> NDArray[Any]:
    flat = np.frombuffer(base64.b64decode(found["data"]), np.dtype(found["dtype"]))
    return flat.reshape(found["shape"]).copy()
