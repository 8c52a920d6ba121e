"""A result with every part that a page can show, and names that try to leave their place."""

import json

import pytest

HOSTILE = """<script>alert("x")</script>&'`${title}"""


def model(scale, auc, hostile=""):
    times = {"p50": 0.5 * scale, "p99": 1.0 * scale, "samples": 300}
    return {
        "quality": {"auc": auc, "gauc": 0.9, "logloss": 0.15, "normalized_entropy": 0.24, "pcoc": 1.0 + scale / 10},
        "by_seed": [{"auc": auc - 0.001}, {"auc": auc + 0.001}],
        "bytes": {
            "disk": int(1_000_000 * scale),
            "vocabulary": 40_000,
            "wire": int(9e5 * scale),
            "resident": int(3e6 * scale),
        },
        "latency_ms": {"256": times, "1": times, "32": times},
        "tensors": [{"name": f"dense.{number}{hostile}", "bytes": 100 * number} for number in range(12)],
    }


@pytest.fixture
def content():
    """All of a result file."""
    steps = [
        {
            "name": "quantize-tables",
            "touched": ["embedding", {"name": "user", "bytes_before": 2000, "bytes_after": 500}],
            "skipped": [{"name": "out", "reason": f"tied {HOSTILE}"}],
            "bytes_before": 400_000,
            "bytes_after": 60_000,
            "note": "bits 4",
            "facts": {"bits": 4},
        }
    ]
    paired = {"a": 0.98, "b": 0.981, "difference": 0.001, "low": -0.0002, "high": 0.0022, "p": 0.1}
    return {
        "name": f"frappe {HOSTILE}",
        "data": f"frappe {HOSTILE}",
        "teacher": model(1.0, 0.98),
        "student": {"quality": {"auc": 0.982}, "bytes": {"disk": 400_000}},
        "slim": {**model(0.05, 0.981, HOSTILE), "steps": steps},
        "floor": {"latency_ms": {"1": {"p50": 0.01, "p99": 0.02, "samples": 300}}},
        "comparison": [
            {**paired, "seed": 1, "verdict": {"margin": 0.001, "outcome": "non-inferior", "rows_needed": 10}},
            {**paired, "seed": 2, "verdict": {"margin": 0.001, "outcome": "undecided", "rows_needed": 12_345}},
        ],
        "calibration": {
            "teacher": {"predicted": [0.1, 0.5], "observed": [0.1, 0.4]},
            "slim": {"predicted": [0.1, 0.5], "observed": [0.2, 0.5]},
        },
        "slices": {
            f"item {HOSTILE}": [
                {"name": "head", "ids": 10, "rows": 1000, "positives": 300, "comparison": paired},
                {"name": "tail", "ids": 1000, "rows": 3, "positives": 1, "comparison": None},
            ]
        },
        "seeds": [1, 2],
        "data_fingerprint": "0123abcd",
        "processor": f"Processor {HOSTILE}",
        "cores": 2,
        "threads": 1,
        "system": "Linux x86_64",
        "instruction_set": ["avx2", "avx512_vnni"],
        "versions": {"python": "3.11.7", "onnxruntime": "1.32.0"},
    }


@pytest.fixture
def smallest():
    """Only what a result must have."""
    part = {"quality": {"auc": 0.9}, "bytes": {"disk": 1000}}
    return {"teacher": part, "slim": part}


@pytest.fixture
def write(tmp_path):
    """Writes content to a result file."""

    def to(content, name="result.json"):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return to
