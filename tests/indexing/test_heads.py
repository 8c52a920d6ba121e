"""The head of a row of products: nothing that may belong to the first k is lost to rounding."""

import numpy as np

from slimrank.indexing.exact import Exact
from slimrank.indexing.heads import heads, slack_of
from slimrank.indexing.index import build_index


def test_every_item_within_the_slack_of_the_last_is_kept() -> None:
    products = np.array([[5, 4, 3, 2.5, 1], [1, 1, 1, 1, 1]], np.float32)
    assert [head.tolist() for head in heads(products, 2, np.array([0.0, 0.0]))] == [[0, 1], [0, 1, 2, 3, 4]]
    assert next(heads(products, 2, np.array([1.5, 0.0]))).tolist() == [0, 1, 2, 3]


def test_the_slack_is_above_every_rounding_error() -> None:
    draw = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e6):
        queries, items = (scale * draw.normal(size=(50, 300)).astype(np.float32) for _ in range(2))
        true = queries.astype(np.float64) @ items.T.astype(np.float64)
        longest = float(np.linalg.norm(items.astype(np.float64), axis=1).max())
        assert (2 * np.abs(queries @ items.T - true) < slack_of(queries, longest, 300)[:, None]).all()


def test_the_first_are_those_of_float64_where_float32_cannot_tell() -> None:
    """Products that differ in the ninth digit: their order in float32 is chance."""
    draw = np.random.default_rng(1)
    items = np.repeat(draw.normal(size=(1, 64)), 500, axis=0).astype(np.float32)
    items[:, 0] = np.nextafter(items[0, 0], np.float32(9)) + np.float32(1e-7) * draw.integers(0, 5, 500)
    query = draw.normal(size=(1, 64)).astype(np.float32)
    true = (items.astype(np.float64) * query).sum(axis=1)
    expected = np.lexsort((np.arange(500), -true))[:25]
    np.testing.assert_array_equal(build_index(Exact(), items).search(query, 25)[0][0], expected)
