"""The front of the benchmarks.

python -m bench                 all of them, one after the other
python -m bench NAME...         some of them
python -m bench --list          their names, and what each compares

Each writes bench/results/NAME.json: its figures, and the machine that they were measured on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.boosted import boosted
from bench.byo import ROWS as BYO
from bench.ease import ease
from bench.edge.frappe import edge
from bench.edge.large import edge_large
from bench.edge.targets import edge_targets
from bench.edge_daily import edge_daily
from bench.exact_steps import exact_steps
from bench.frappe import frappe
from bench.frappe_goal import frappe_goal
from bench.full_ranking import full_ranking
from bench.import_time import import_time
from bench.ladder.entries import LADDERS
from bench.ladder.page import write_page
from bench.ladder.points import ladder
from bench.lookups import lookups
from bench.metrics import metrics
from bench.movielens import movielens
from bench.mq2008 import mq2008
from bench.next_item import GOALS as NEXT_ITEM
from bench.next_item import next_item
from bench.onnx_stream import onnx_stream
from bench.peer_tuning import peer_tuning
from bench.post_training import post_training
from bench.scifact import scifact
from bench.search_front import search_front
from bench.serve import serve
from bench.serve_overload import serve_overload
from bench.serve_peers import serve_peers
from bench.shared_features import shared_features
from bench.soak import MINUTES, soak
from bench.throughput import CASES, throughput
from bench.top_k import top_k
from bench.two_tower import two_tower
from slimrank.config import InputError, nearest
from slimrank.evaluation.machine import machine
from slimrank.files import write_json

RESULTS = Path(__file__).parent / "results"
PAGES = Path(__file__).parents[1] / "docs" / "ladders"
BENCHMARKS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], str]] = {
    "movielens": (
        lambda options: movielens(options.runs / "movielens"),
        "slim artifact beside its fp32 teacher: quality, bytes, latency",
    ),
    "frappe": (
        lambda options: frappe(options.runs / "frappe"),
        "the same on Frappe, three seeds, beside the lookups alone",
    ),
    "frappe-goal": (
        lambda options: frappe_goal(options.runs / "frappe-goal"),
        "search for the smallest model within .001 of AUC on Frappe, half an hour",
    ),
    "peer-tuning": (
        lambda options: peer_tuning(options.runs / "frappe-goal"),
        "that search beside Olive, ONNX Runtime's quantisers and torchao on the same teacher",
    ),
    "search-front": (
        lambda options: search_front(options.runs / "search-front", RESULTS / "ladder-frappe.json"),
        "the front of a search beside chance over the same space and beside every ladder, five seeds",
    ),
    "scifact": (
        lambda options: scifact(options.runs / "scifact"),
        "text encoders of two sizes beside all-MiniLM-L6-v2 and ONNX Runtime's own quantiser: nDCG@10, bytes, latency",
    ),
    **{
        f"throughput-{case}": (
            partial(lambda options, case: throughput(case, threads=options.threads), case=case),
            f"training, rows a second beside FuxiCTR, {case}",
        )
        for case in CASES
    },
    "post-training": (
        lambda options: post_training(threads=options.threads),
        "every kind applied to a 10,000,000 x 16 table: seconds and memory",
    ),
    **{
        f"ladder-{name}": (
            partial(lambda options, name: ladder(LADDERS[name](), options.runs / "ladder" / name), name=name),
            f"every kind of table at 4 to 256 times fewer bytes, {name}; writes docs/ladders",
        )
        for name in LADDERS
    },
    **{
        name.replace("_", "-"): (
            partial(lambda options, name: next_item(name, options.runs / name.replace("_", "-")), name=name),
            f"slim artifact beside its fp32 teacher among the whole catalogue, recipes/{name}.py",
        )
        for name in NEXT_ITEM
    },
    "onnx-stream": (
        lambda options: onnx_stream(options.runs / "onnx-stream"),
        "a 3 GB ONNX file with a table of 40,000,000 x 16 to int4: memory at the peak, bytes, seconds",
    ),
    "exact-steps": (
        lambda options: exact_steps(options.runs / "frappe"),
        "join-fields, fold-first-layer and the rewrites of a graph on Frappe: the same scores in less time",
    ),
    "mq2008": (
        lambda options: mq2008(options.runs / "mq2008"),
        "learning to rank: a network distilled from LightGBM beside it and beside one from grades, five folds",
    ),
    "boosted": (
        lambda options: boosted(),
        "LightGBM of 500 trees on Frappe beside a network distilled from it: AUC, bytes, latency",
    ),
    "lookups": (lambda options: lookups(), "a lookup in the artifact, every kind of table beside a Gather of floats"),
    "full-ranking": (
        lambda options: full_ranking(threads=options.threads),
        "SASRec on MovieLens-1M, every user and every item: seconds beside RecBole",
    ),
    "edge": (
        lambda options: edge(options.runs / "frappe-edge"),
        "Frappe's slim artifact in a browser: bytes on the wire, milliseconds to the first score and for 256 rows",
    ),
    "edge-targets": (
        lambda options: edge_targets(options.runs / "frappe-edge"),
        "that artifact through every deployment target in its own runtime: scores, the first ten, bytes",
    ),
    "edge-large": (
        lambda options: edge_large(),
        "a table of 5,000,000 x 16 at 4 bits in a browser: bytes on the wire, memory of the tab",
    ),
    "shared-features": (
        lambda options: shared_features(),
        "256 candidates of a request, half of the fields shared: split graph beside the unsplit one",
    ),
    "top-k": (
        lambda options: top_k(),
        "the first ten of 1e5 and 1e6 items: indices beside a flat product",
    ),
    "ease": (
        lambda options: ease(options.runs / "ease"),
        "EASE on MovieLens-1M, dense and pruned: bytes, recall of unseen users' items, latency",
    ),
    "two-tower": (
        lambda options: two_tower(options.runs / "two-tower"),
        "two towers and matrix factorisation on MovieLens-100K: what is found, bytes, kinds of index",
    ),
    **{
        f"byo-{name}": (
            partial(lambda options, name, row: row(options.runs / f"byo-{name}"), name=name, row=row),
            f"a model of {name}, compressed as it comes: bytes, quality, parity, latency",
        )
        for name, row in BYO.items()
    },
    "serve": (
        lambda options: serve(options.runs / "frappe"),
        "the service on Frappe, 256 candidates a request, 32 clients: p50 and p99 beside the runtime alone, by stage",
    ),
    "serve-peers": (
        lambda options: serve_peers(options.runs / "frappe"),
        "requests a second at equal p99 beside kserve, MLServer, LitServe and Triton: the same ONNX file",
    ),
    "serve-overload": (
        lambda options: serve_overload(options.runs / "frappe"),
        "ten times overload of the service: accepted and shed requests, and how soon it is over",
    ),
    "soak": (
        lambda options: soak(options.runs / "frappe", options.minutes),
        "the service under mixed load with reloads, killed workers, malformed and slow clients: answers and memory",
    ),
    "metrics": (lambda options: metrics(), "metrics and paired comparisons of a million rows: seconds"),
    "edge-daily": (
        lambda options: edge_daily(options.runs / "edge-daily"),
        "three days of retraining on MovieLens-100K: bytes of the delta and AUC, codes kept and not",
    ),
    "import-time": (lambda options: import_time(), "import slimrank.runtime beside an empty interpreter"),
}


def main() -> int:
    """Run what the command line names; 2 where a name is unknown or something is missing."""
    options = _arguments()
    if options.list:
        print("\n".join(f"{name:28}{what}" for name, (_, what) in BENCHMARKS.items()))
        return 0
    try:
        for name in options.names or BENCHMARKS:
            if name not in BENCHMARKS:
                raise InputError(f"unknown benchmark {name!r}. {nearest(name, list(BENCHMARKS))}")
        for name in options.names or BENCHMARKS:
            result = {"name": name, **BENCHMARKS[name][0](options), "machine": machine()}
            write_json(RESULTS / f"{name}.json", result)
            if name.startswith("ladder-"):
                write_page(result, PAGES)
            print(json.dumps({key: value for key, value in result.items() if key != "runs"}, indent=1), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks; see bench/README.md.")
    parser.add_argument("names", nargs="*", help="which; all where none is named")
    parser.add_argument("--list", action="store_true", help="name them and stop")
    parser.add_argument("--threads", type=int, default=2, help="threads for training and quantisation")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long the soak takes")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where finished runs are, or are made")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
