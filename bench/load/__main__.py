"""The process of a generator: `python -m bench.load PLAN.json SAMPLES.npz`; see `bench.load.process`."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import numpy as np

from bench.load.generator import Generator
from bench.load.plan import Plan
from bench.load.requests import read_requests


def main() -> None:
    """Run the plan, write samples and say the rest as the last line."""
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    generator = Generator(plan, read_requests(Path(plan.requests)))
    gc.collect()
    gc.disable()  # nothing here is a circle, and a collection would stand in a latency
    print("ready", flush=True)
    loaded = generator.run()
    np.save(sys.argv[2], loaded.samples)
    print(json.dumps({"processor": loaded.processor, "seconds": loaded.seconds, "wrong": loaded.wrong}), flush=True)


if __name__ == "__main__":
    main()
