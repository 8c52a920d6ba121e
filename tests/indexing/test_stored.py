"""Stored vectors: bytes from arithmetic, and never further off than half a step."""

import numpy as np
import pytest

from slimrank.config import InputError
from slimrank.indexing.stored import check_stored, longest, restored, stored

ROWS = np.array([[1.0, -2.54], [0.5, 1.27]], np.float32)


def test_bytes_of_a_dimension_from_arithmetic() -> None:
    arrays = stored(ROWS, "int8")
    assert arrays["scale"] == pytest.approx([1 / 127, 0.02])
    assert arrays["vectors"].tolist() == [[127, -127], [64, 64]]  # 63.5 steps go to the even neighbour
    np.testing.assert_allclose(restored(arrays, [1]), [[64 / 127, 1.28]], rtol=1e-6)


def test_bytes_of_a_vector_from_arithmetic() -> None:
    arrays = stored(ROWS, "int8", "vector")
    assert arrays["scale"] == pytest.approx([0.02, 0.01])
    assert arrays["vectors"].tolist() == [[50, -127], [50, 127]]
    np.testing.assert_allclose(restored(arrays, [1], "vector"), [[0.5, 1.27]], rtol=1e-6)


@pytest.mark.parametrize("scale_of", ["dimension", "vector"])
def test_bytes_are_off_by_half_a_step_at_most(scale_of: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    arrays = stored(vectors, "int8", scale_of)
    scale = arrays["scale"] if scale_of == "dimension" else arrays["scale"][:, None]
    gap = np.abs(restored(arrays, slice(None), scale_of) - vectors)
    assert (gap <= 0.5001 * scale).all()


def test_halves_beyond_their_range_are_the_largest_there_is() -> None:
    arrays = stored(np.array([[1e6, -1e6, 1.0]], np.float32), "float16")
    assert restored(arrays, slice(None)).tolist() == [[65504, -65504, 1]]


def test_the_longest_vector() -> None:
    rows = np.array([[3, 4], [0, 1], [6, 8]], np.float32)
    assert longest(stored(rows, "float32"), "dimension", 2) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.zeros((3, 2), np.int8)}, r"vectors must be \[2, 2\]"),
        ({"scale": np.zeros(3, np.float32)}, r"scale must be \[2\]"),
        ({"scale": np.full(2, np.nan, np.float32)}, "NaN"),
        ({"vectors": np.zeros((2, 2), np.float32)}, "floats have none"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_stored({**stored(ROWS, "int8"), **change}, "exact", 2, 2)
