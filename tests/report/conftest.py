"""A result with every part that a page can show, and names that try to leave their place."""

import json

import pytest

HOSTILE = """<script>alert("x")</script>&'`${title}"""


def model(scale, auc, hostile=""):
    spread = {str(share): (0.4 + share / 200) * scale for share in (5, 25, 50, 75, 95, 99)}
    times = {"p50": 0.5 * scale, "p99": 1.0 * scale, "samples": 300, "quantiles": spread}
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


@pytest.fixture(name="tried")
def maker_of_trials():
    """Makes what a search says of one trial."""
    return tried


def tried(number, size, loss, state="complete", **others):
    """A trial of a search."""
    changes = {
        "student.model.hidden": [8 * number, 8],
        "steps": [{"name": "quantize-tables", "bits": 4, "only": [f"item {HOSTILE}"]}, {"name": "quantize-dense"}],
    }
    figures = {"bytes": size, "auc_drop": loss} if state != "failed" else {}
    return {"number": number, "state": state, "changes": changes, "figures": figures, "share": 1.0, **others}


@pytest.fixture
def search():
    """What a search says of itself, with one bound that is met, one that is not, and trials of every state."""
    proof = {"low": -0.0005, "high": 0.0011, "better": "higher", "outcome": "undecided", "rows_needed": 123_456}
    return {
        "goal": "auc_drop <= 0.001, bytes <= 40 KB",
        "met": False,
        "bounds": [
            {"key": "auc_drop", "limit": 0.001, "value": -0.0003, "met": True, "proof": proof},
            {"key": "bytes", "limit": 40_000, "value": 50_000, "met": False},
        ],
        "concessions": [{"key": "bytes", "limit": 40_000, "value": 50_000, "trial": 3}],
        "trials": [
            *(tried(number, 1000 * 2**number, 0.01 / number - 0.002) for number in range(1, 7)),
            tried(7, 9000, 0.3, "stopped", share=1 / 9, reason="others lead"),
            tried(8, 0, 0, "failed", reason=f"a budget {HOSTILE}"),
            tried(9, 500, 0.45),
        ],
        "front": [1, 2, 3, 4, 5, 6],
        "chosen": 3,
        "rows": {"search": 1000, "selection": 1001, "test": 2000},
        "sensitivity": {
            "fields": {f"item {HOSTILE}": 0.2, "hour": -0.001},
            "tables": [{"field": f"item {HOSTILE}", "bits": bits, "loss": 0.1 / bits} for bits in (1, 2, 4, 8)],
            "layers": [{"layer": "mlp.0", "zeros": zeros, "loss": zeros / 10} for zeros in (0.3, 0.5)],
        },
        "workers": 2,
        "seconds": 90.0,
        "spent": 7.1,
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
        "recipe": {"name": f"frappe {HOSTILE}", "seeds": [1]},
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
