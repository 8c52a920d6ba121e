"""A client of gRPC by `tritonclient`, at a steady rate.

`python -m bench.load.grpc_clients PORT NAME SECONDS RATE FILE`: FILE is an `.npz` of what it asks and what each version
must answer, `ids` [R, N, K] and, by the digest of a version, `expected.DIGEST` [R, N]. What is told is how calls ended,
how many answers were right and wrong, and milliseconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any

import numpy as np

from bench.load.answers import TOLERANCE
from bench.load.figures import spread

HOST = "127.0.0.1"
TIMEOUT = 5.0


def run(port: int, name: str, seconds: float, rate: float, path: str) -> dict[str, Any]:
    """One call after the other, each at its time or as soon as the last has ended."""
    import tritonclient.grpc as triton

    with np.load(path) as arrays:
        asked = arrays["ids"]
        expected = {key.partition(".")[2]: arrays[key] for key in arrays.files if key.startswith("expected.")}
    client = triton.InferenceServerClient(f"{HOST}:{port}")
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    taken: list[int] = []
    begin = time.perf_counter()
    for call in range(int(seconds * rate)):
        time.sleep(max(0.0, begin + call / rate - time.perf_counter()))
        place = call % len(asked)
        ids = triton.InferInput("ids", list(asked[place].shape), "INT32")
        ids.set_data_from_numpy(asked[place])
        start = time.perf_counter_ns()
        try:
            answer = client.infer(name, [ids], client_timeout=TIMEOUT)
        except triton.InferenceServerException as error:
            ends[str(error.status() or error.message())[:80]] += 1
            continue
        taken.append(time.perf_counter_ns() - start)
        fault = _fault(answer, expected, place)
        ends["wrong" if fault else "right"] += 1
        wrong += [fault] if fault and len(wrong) < 5 else []
    return {"calls": dict(ends), "latency_ms": spread(taken), "wrong_answers": wrong}


def _fault(answer: Any, expected: dict[str, Any], place: int) -> str:
    version = answer.get_response().model_version
    scores = next((each for digest, each in expected.items() if version and digest.startswith(version)), None)
    if scores is None:
        return f"version {version!r}"
    logits = answer.as_numpy("logit").astype(np.float64)
    gap = float(np.abs(1 / (1 + np.exp(-logits)) - scores[place]).max())
    return "" if gap <= TOLERANCE else f"a probability is off by {gap:.3g}"


if __name__ == "__main__":
    told = sys.argv
    print(json.dumps(run(int(told[1]), told[2], float(told[3]), float(told[4]), told[5])))
