"""The command line: one verb per stage, and others to look at what came out, prove it and serve it."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from slimrank.config import InputError
from slimrank.deploying.commands import deployed
from slimrank.shipping.commands import shipping

app = typer.Typer(
    name="slimrank",
    help="Make search and recommendation models small and fast, and prove that they still rank.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(deployed)
app.add_typer(shipping)

Recipe = Annotated[str | None, typer.Argument(help="A .toml or .py recipe; without one, the main job.")]
Data = Annotated[str | None, typer.Option(help="A dataset's name, a .parquet or .csv file, or the data's folder.")]
Out = Annotated[Path | None, typer.Option(help="The run directory; runs/NAME if not given.")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="Run with this seed; may be given several times.")]
Folder = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The directory of an artifact.")]


@app.command()
def run(
    recipe: Recipe = None,
    data: Data = None,
    out: Out = None,
    seed: Seeds = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check recipe and data, and say the plan.")] = False,
) -> None:
    """Train, compress, retrain, export, measure and report."""
    if dry_run:
        from slimrank.pipeline.plan import plan

        chosen, folder = _recipe(recipe, data, seed)
        typer.echo(plan(chosen, _directory(out, chosen), folder))
        return
    from slimrank.report import print_result

    directory = _run(recipe, data, out, seed, "report")
    print_result(directory / "result.json")
    typer.echo(f"report: {directory / 'report.html'}")


@app.command()
def train(recipe: Recipe = None, data: Data = None, out: Out = None, seed: Seeds = None) -> None:
    """Train the teachers of a recipe."""
    _run(recipe, data, out, seed, "train")


@app.command()
def compress(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE|MODEL.onnx", help="A recipe, or an ONNX file.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A dataset or file; of an ONNX file, rows of its inputs.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory; of an ONNX file, the new one.")] = None,
    seed: Seeds = None,
    step: Annotated[
        list[str] | None,
        typer.Option(help="Of an ONNX file: NAME or NAME:KEY=VALUE,..; several times, in order."),
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Of an ONNX file: bits of its tables, 8 if not given.")] = None,
) -> None:
    """Train, distil, compress and retrain; or compress an ONNX file as it is, without torch."""
    if recipe is not None and recipe.endswith(".onnx"):
        _compress_graph(Path(recipe), data, out, seed, step, bits)
        return
    if step or bits is not None:
        raise InputError("--step and --bits are of an ONNX file: the steps of a run are in its recipe")
    _run(recipe, data, out, seed, "compress")


def _compress_graph(
    model: Path, data: str | None, out: Path | None, seeds: list[int] | None, step: list[str] | None, bits: int | None
) -> None:
    """Compress an ONNX file, and say what was done to it."""
    _need("onnx_ir", "graphs")
    from slimrank.graphs.compress import compress_graph
    from slimrank.graphs.told import asked_steps, told

    if seeds is not None and len(seeds) > 1:
        raise InputError(f"--seed: an ONNX file is compressed once, got {len(seeds)} seeds")
    target = out or model.with_name(f"{model.stem}-slim.onnx")
    result = compress_graph(model, target, asked_steps(step, bits), data, seed=seeds[0] if seeds else 0)
    typer.echo("\n".join(told(result, target)))


@app.command()
def export(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe, or the directory of an artifact: PATH or NAME=PATH.")
    ] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="The run directory; of an artifact, the folder to write to.")] = None,
    seed: Seeds = None,
    target: Annotated[
        str | None, typer.Option(help="Of an artifact: triton, web, ort, .. or NAME:KEY=VALUE,..")
    ] = None,
) -> None:
    """Write the artifacts of a recipe; or write an artifact as another runtime takes it, without torch."""
    from slimrank.artifact import named

    if recipe is None or not (named(recipe)[1] / "manifest.json").exists():
        if target is not None:
            raise InputError(f"--target is of an artifact, and {recipe or 'the main job'} is none: it is in the recipe")
        _run(recipe, data, out, seed, "export")
        return
    if target is None or out is None or data is not None or seed:
        raise InputError(f"{recipe} is an artifact: it needs --target and --out, and takes nothing else")
    from slimrank.config import read_named
    from slimrank.deploying.deploy import deploy

    typer.echo(deploy(recipe, out, read_named(target, "--target")))


@app.command()
def evaluate(
    recipe: Annotated[str | None, typer.Argument(help="A recipe, or the directory of an artifact.")] = None,
    data: Data = None,
    out: Out = None,
    seed: Seeds = None,
) -> None:
    """Measure the artifacts of a recipe, or one artifact on a dataset's test rows (JSON)."""
    if recipe is None or not Path(recipe).is_dir():
        from slimrank.report import print_result

        print_result(_run(recipe, data, out, seed, "evaluate") / "result.json")
        return
    if data is None:
        raise InputError(f"{recipe} is a directory, so an artifact: it needs --data, a dataset's name or a file")
    chosen, folder = _recipe(None, data, None)
    from slimrank.data import load_dataset
    from slimrank.evaluation.measure import measure

    measured = measure({"artifact": Path(recipe)}, load_dataset(chosen.data, folder))
    _print_json(measured["artifact"].record)


@app.command()
def search(
    recipe: Recipe = None,
    goal: Annotated[
        str | None,
        typer.Option(help="Such as 'auc_drop <= 0.001, bytes <= 64 KB, p99_ms@256 <= 2'; or in the recipe."),
    ] = None,
    data: Data = None,
    out: Out = None,
    minutes: Annotated[float | None, typer.Option(help="How long it may take; 30 if not given.")] = None,
    trainings: Annotated[float | None, typer.Option(help="How many whole trainings it may take.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes; one a core if not given.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="The URL of a database, to search from several machines; SQLite in --out.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="The study's name there; the recipe's if not given.")] = None,
) -> None:
    """Find the smallest model within a goal and test it on rows of its own; exit code 3 where those miss the goal."""
    chosen, folder = _recipe(recipe, data, None)
    from slimrank.pipeline.search import search as find
    from slimrank.report import print_result
    from slimrank.searching.search import read_search

    said = {"goal": goal, "minutes": minutes, "trainings": trainings, "workers": workers}
    asked = read_search(recipe, **said, storage=storage, study=study)
    directory = out or Path("runs") / f"{chosen.name}-search"
    result = find(chosen, asked, directory, data=folder, say=lambda line: typer.echo(line, err=True))
    print_result(directory / "result.json")
    typer.echo(f"report: {directory / 'report.html'}")
    if not result["search"]["met"]:
        raise typer.Exit(3)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The baseline: an artifact, or a file of scores.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The candidate: an artifact, or a file of scores.")],
    data: Annotated[str, typer.Option(help="Rows: a .parquet or .csv file, or a dataset's name for its test rows.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Such as auc, gauc, logloss, ndcg@10, field_ece@city; several times, the first is judged."),
    ] = None,
    margin: Annotated[float, typer.Option(help="The loss of the first metric that nobody may notice.")] = 0.001,
    label: Annotated[str | None, typer.Option(help="The column of the label; else the artifact's.")] = None,
    group: Annotated[str | None, typer.Option(help="The column of the user or query; else the artifact's.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="A column to slice by; may be given several times.")] = None,
    out: Annotated[Path | None, typer.Option(help="A .json file for everything that was found.")] = None,
) -> None:
    """Prove that B ranks as well as A on the same rows; exit code 3 where that is not shown."""
    from slimrank.evaluation.evidence import evidence
    from slimrank.evaluation.question import Question
    from slimrank.report.comparison import print_comparison

    asked = Question(tuple(metric or ()), margin, label, group, tuple(by or ()))
    rows, schema = _rows(data)
    found = evidence(a, b, rows, asked, schema)
    if out is not None:
        from slimrank.files import write_json

        write_json(out, found)
    print_comparison(found)
    if found["verdict"]["outcome"] != "non-inferior":
        raise typer.Exit(3)


def _rows(data: str) -> tuple[Any, Any]:
    """The rows that --data means, and their schema where it is known: a file, or the test rows of a dataset."""
    if Path(data).is_file():
        return Path(data), None
    from slimrank.data import load_dataset

    dataset = load_dataset(data)
    return dataset.test, dataset.schema


@app.command()
def report(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="A run's directory, or its result.json.")],
    format: Annotated[str, typer.Option(help="html, md, svg or png.")] = "html",
    out: Annotated[Path | None, typer.Option(help="The file, or the folder of pictures; beside the result.")] = None,
) -> None:
    """Write a finished run's result as a page, as Markdown for a pull request, or as pictures."""
    from slimrank.config import nearest
    from slimrank.report import write_markdown, write_pictures, write_report

    formats = ("html", "md", "png", "svg")
    if format not in formats:
        raise InputError(f"unknown format {format!r}. {nearest(format, formats)}")
    source = result / "result.json" if result.is_dir() else result
    if format in ("png", "svg"):
        written = write_pictures(source, out or source.parent / "pictures", format)
    else:
        written = [out or source.parent / f"report.{format}"]
        (write_report if format == "html" else write_markdown)(source, written[0])
    for path in written:
        typer.echo(path)


@app.command()
def inspect(artifact: Folder) -> None:
    """What an artifact holds: schema, tensors by bytes, operators, hashes, metrics (JSON)."""
    from slimrank.runtime.inspect import inspect

    _print_json(inspect(artifact))


@app.command()
def predict(
    artifact: Folder,
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="A .parquet or .csv file of raw rows, or of inputs.")],
    out: Annotated[
        Path | None, typer.Option(help="A .parquet or .csv (of items: .jsonl) file for the result; else on stdout.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="How many items, of a model that answers with items.")] = 10,
) -> None:
    """Score raw rows, find the first k items of every query, or ask a module of your own; unknown ids are counted."""
    from slimrank.predicting import predict

    predict(artifact, rows, out, k)


@app.command()
def sign(
    artifact: Annotated[Path | None, typer.Argument(metavar="ARTIFACT", help="The directory of an artifact.")] = None,
    key: Annotated[Path | None, typer.Option(help="The private key (PEM) to sign with.")] = None,
    check: Annotated[Path | None, typer.Option(help="A public key (PEM): check the signature that is there.")] = None,
    new_key: Annotated[Path | None, typer.Option(help="Make a private key in this file, a public one in .pub.")] = None,
) -> None:
    """Sign an artifact (Ed25519) in ARTIFACT.sig beside it, check its signature, or make a pair of keys."""
    from slimrank.signing import asked

    typer.echo(asked(artifact, key, check, new_key))


@app.command()
def serve(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]ARTIFACT...", help="Artifacts, each a model named after its folder or NAME."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings: models with versions, limits.")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on; 127.0.0.1 if not given.")] = None,
    port: Annotated[int | None, typer.Option(help="The port of HTTP, 8000 if not given; 0 takes a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="The port of gRPC; no gRPC if not given.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; 1 if not given.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="Holds the token that requests must bear.")] = None,
    set: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of any other setting, such as limits.max_rows=256; repeatable.")
    ] = None,
) -> None:
    """Answer over HTTP and gRPC: tensors by the Open Inference Protocol, and candidates of raw rows."""
    from slimrank.serving import serve
    from slimrank.serving.settings import settings_of

    options = {"host": host, "port": port, "grpc_port": grpc_port, "workers": workers, "token_file": token_file}
    serve(
        settings_of(artifacts or [], config, {key: value for key, value in options.items() if value is not None}, set)
    )


@app.command()
def doctor() -> None:
    """Versions, cores, instruction set, and what is missing."""
    from slimrank.evaluation.machine import doctor

    for finding in doctor():
        typer.echo(str(finding))


def _recipe(source: str | None, data: str | None, seeds: list[int] | None) -> tuple[Any, Path | None]:
    """The recipe, and the folder that holds its data where the user names one."""
    _need("torch", "train")
    config, folder = (None, None) if data is None else _data(data, source)
    from slimrank.recipe import read_recipe  # loads torch: a wrong --data is told before

    changes: dict[str, Any] = {"seeds": tuple(seeds)} if seeds else {}
    if config is not None:
        changes["data"] = config
        if source is None:
            changes["name"] = _name_after(config)
    return read_recipe(source, **changes), folder


def _name_after(dataset: Any) -> str:
    """What a run of the main job's recipe on other data is called: the file, the folder, or the dataset."""
    path = getattr(dataset, "path", None)
    name = dataset.name if path is None else path.resolve().name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "run"


def _data(data: str, source: str | None) -> tuple[Any, Path | None]:
    """The dataset that --data means, or None where it means a folder that holds the data of the recipe."""
    from slimrank.data import resolve

    if not Path(data).is_dir():
        return resolve(data)
    if source is None:
        with contextlib.suppress(InputError):
            return resolve(Path(data))
    return None, Path(data)


def _run(source: str | None, data: str | None, out: Path | None, seeds: list[int] | None, until: str) -> Path:
    """Run a recipe up to a stage; returns its directory."""
    recipe, folder = _recipe(source, data, seeds)
    from slimrank.pipeline.run import run

    directory = _directory(out, recipe)
    run(recipe, directory, data=folder, until=until)
    return directory


def _directory(out: Path | None, recipe: Any) -> Path:
    return out or Path("runs") / recipe.name


def _need(module: str, extra: str) -> None:
    """Raises `InputError` with the install command where a package of an extra is missing."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise InputError(f"{module} is not installed; this verb needs: pip install 'slimrank[{extra}]'")


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def main() -> None:
    """Run the command line; what the user can mend is one line on stderr and exit code 2."""
    try:
        app()
    except InputError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
