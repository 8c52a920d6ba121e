"""Tables behind the call contract of torch's modules: vectors and gradients are torch's, also where it is hard."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from slimrank.config import InputError, as_config, runner
from slimrank.exporting.checks import check_graph, standard_faults
from slimrank.exporting.graph import IR_VERSION, build_graph, write_graph
from slimrank.exporting.pack import pack
from slimrank.runtime.session import OPERATORS
from slimrank.tables.dense import DenseTable
from slimrank.tables.integer import OPSET
from slimrank.tables.modules import Embedding, EmbeddingBag
from slimrank.tables.scaled import PackedTable, Scaled, scaled

ROWS, DIM, PADDING = 7, 3, 2
MODES = ("sum", "mean", "max")
EVEN = [torch.tensor(ids, dtype=torch.int64).reshape(shape) for ids, shape in (
    ([0, 1, 2, 3, 3, 3], (2, 3)),  # repeated ids, one padded
    ([2, 2, 2, 6], (2, 2)),  # a bag of padding alone
    ([5], (1, 1)),
    ([], (0, 4)),
)]  # fmt: skip
RAGGED = [(torch.tensor(ids, dtype=torch.int64), torch.tensor(offsets, dtype=torch.int64)) for ids, offsets in (
    ([0, 1, 2, 3, 3, 3], [0, 2, 5]),
    ([4, 2, 2, 6, 1], [0, 0, 1, 3, 3, 5]),  # empty bags first, between and last; one of padding alone
    ([5], [0]),
    ([], [0, 0, 0]),
    ([3, 3], [0, 2]),
)]  # fmt: skip


def rows(*, ties: bool = False) -> Tensor:
    """Rows with values below and above 0; with `ties` many are equal."""
    weight = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(1))
    return weight.round() if ties else weight


def bag_pair(
    mode: str, padding: int | None, *, last: bool = False, ties: bool = False
) -> tuple[nn.EmbeddingBag, EmbeddingBag]:
    """Torch's module, and ours over rows of its own."""

    def make() -> nn.EmbeddingBag:
        weight = rows(ties=ties)
        return nn.EmbeddingBag(ROWS, DIM, mode=mode, padding_idx=padding, include_last_offset=last, _weight=weight)

    return make(), EmbeddingBag.of(make())


def assert_alike(
    theirs: nn.Module, ours: EmbeddingBag | Embedding, *inputs: Tensor, factors: Tensor | None = None
) -> None:
    """The same vectors, and the same gradients of rows and of weights for the samples."""
    pair = [] if factors is None else [factors.clone().requires_grad_() for _ in range(2)]
    expected, found = (
        module(*inputs, **({"per_sample_weights": pair[place]} if pair else {}))
        for place, module in enumerate((theirs, ours))
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    slope = torch.arange(1.0, expected.numel() + 1).reshape(expected.shape)
    (expected * slope).sum().backward()
    (found * slope).sum().backward()
    torch.testing.assert_close(ours.table.weight.grad, theirs.weight.grad, atol=1e-6, rtol=1e-6)
    if pair:
        torch.testing.assert_close(pair[1].grad, pair[0].grad, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("padding", [None, PADDING, -1])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("ids", [torch.tensor([[0, 2], [2, 6]]), torch.tensor([2]), torch.tensor(3), torch.zeros(0)])
def test_embedding_is_that_of_torch(ids: Tensor, dtype: torch.dtype, padding: int | None) -> None:
    theirs = nn.Embedding(ROWS, DIM, padding_idx=padding, _weight=rows())
    assert_alike(theirs, Embedding.of(nn.Embedding(ROWS, DIM, padding_idx=padding, _weight=rows())), ids.to(dtype))


@pytest.mark.parametrize(("mode", "padding", "ties"), list(product(MODES, [None, PADDING, -5], [False, True])))
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_bags_are_those_of_torch(mode: str, padding: int | None, ties: bool, dtype: torch.dtype) -> None:
    for ids in EVEN:
        assert_alike(*bag_pair(mode, padding, ties=ties), ids.to(dtype))
    for (ids, offsets), last in product(RAGGED, [False, True]):
        ends = torch.cat([offsets, torch.tensor([len(ids)])]) if last else offsets
        assert_alike(*bag_pair(mode, padding, last=last, ties=ties), ids.to(dtype), ends.to(dtype))


@pytest.mark.parametrize("padding", [None, PADDING])
def test_weighted_sums_are_those_of_torch(padding: int | None) -> None:
    for ids in EVEN:
        assert_alike(*bag_pair("sum", padding), ids, factors=torch.rand(ids.shape) - 0.5)
    for ids, offsets in RAGGED:
        assert_alike(*bag_pair("sum", padding), ids, offsets, factors=torch.rand(ids.shape) - 0.5)


def test_long_random_bags_are_those_of_torch() -> None:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, ROWS, (500,), generator=draw)
    offsets = torch.randint(0, 500, (60,), generator=draw).sort().values
    offsets[0] = 0
    for mode in MODES:
        assert_alike(*bag_pair(mode, PADDING, ties=True), ids, offsets)


def test_ids_after_the_last_bag_are_in_none() -> None:
    """Torch's module gives the same bags, and a wrong gradient or none at all: it writes beyond its bags."""
    for mode in MODES:
        ours = EmbeddingBag(DenseTable(rows()), mode, include_last_offset=True)
        ours(torch.tensor([0, 1, 5]), torch.tensor([0, 2])).sum().backward()
        assert ours.table.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [0, 1]
        assert ours(torch.tensor([5]), torch.tensor([0])).shape == (0, DIM)


def test_what_padding_holds_never_counts() -> None:
    weight = rows()
    weight[PADDING] = torch.nan
    for mode, (ids, offsets) in product(MODES, RAGGED):
        assert EmbeddingBag(DenseTable(weight), mode, PADDING)(ids, offsets).isfinite().all()
    assert EmbeddingBag(DenseTable(weight), "max")(*RAGGED[0]).isnan().any()  # elsewhere NaN does not vanish
    with torch.no_grad():
        assert EmbeddingBag(DenseTable(weight), "max")(*RAGGED[0]).isnan().any()


def test_bags_of_no_columns_are_zeros() -> None:
    """Torch's own module fails on them."""
    for mode in MODES:
        bags = EmbeddingBag(DenseTable(rows()), mode)(torch.zeros(3, 0, dtype=torch.int32))
        assert torch.equal(bags, torch.zeros(3, DIM))


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_sparse_gradients_hold_the_rows_of_the_batch(mode: str) -> None:
    theirs = nn.EmbeddingBag(ROWS, DIM, mode=mode, sparse=True, _weight=rows())
    ours = EmbeddingBag.of(nn.EmbeddingBag(ROWS, DIM, mode=mode, sparse=True, _weight=rows()))
    for module in (theirs, ours):
        module(*RAGGED[0]).square().sum().backward()
    gradient = ours.table.weight.grad.coalesce()
    torch.testing.assert_close(gradient.to_dense(), theirs.weight.grad.to_dense())
    assert gradient.indices()[0].tolist() == [0, 1, 2, 3]
    assert ours.table.sparse_parameters() == [ours.table.weight]


def test_what_torch_says_of_its_module_is_kept() -> None:
    module = nn.EmbeddingBag(ROWS, DIM, mode="max", padding_idx=-1, include_last_offset=True)
    ours = EmbeddingBag.of(module)
    assert (ours.mode, ours.padding_idx, ours.include_last_offset) == ("max", ROWS - 1, True)
    assert (ours.num_embeddings, ours.embedding_dim) == (ROWS, DIM)
    assert ours.table.weight.data_ptr() == module.weight.data_ptr()
    frozen = Embedding.of(nn.Embedding.from_pretrained(rows(), padding_idx=1))
    assert not frozen.table.weight.requires_grad
    assert repr(frozen).startswith("Embedding(\n  padding_idx=1")
    assert "mode='max', padding_idx=6, include_last_offset=True" in repr(ours)


@pytest.mark.parametrize(
    "kind",
    [
        {"name": "scaled", "bits": 1},
        {"name": "codebook", "parts": 1, "bits": 8},
        {"name": "low-rank", "rank": 2, "centred": True},
        {"name": "remapped"},
    ],
    ids=str,
)
def test_padding_of_zeros_stays_zeros_in_a_table_that_cannot_hold_them(kind: dict[str, object]) -> None:
    module = nn.Embedding(
        ROWS, 8, padding_idx=0, _weight=torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(1))
    )
    with torch.no_grad():
        module.weight[0] = 0.0
    ours = Embedding.of(module)
    config = as_config("table", kind)
    ours.table = runner("table", config)(config, module.weight.detach() + 0.1)
    assert ours.table.rows(0, 1).any()
    for form in (ours, ours.pack(), Embedding(ours.table, 0, zero_padding=True)):
        assert not form(torch.tensor([[0], [0]])).any()
        assert form(torch.tensor([1])).any()
    assert Embedding(ours.table, 0)(torch.tensor([0])).any()


def small(mode: str = "sum", padding: int | None = PADDING, *, last: bool = False) -> EmbeddingBag:
    """Bags over rows of 4 bits."""
    weight = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(2))
    return EmbeddingBag(scaled(Scaled(bits=4), weight), mode, padding, last)


def test_packing_keeps_all_but_the_form_of_the_table() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bags = small("mean", last=True)
            self.rows = Embedding(small().table, 3)

    model = Model()
    packed = pack(model)
    for one, other in ((model.bags, packed.bags), (model.rows, packed.rows)):
        assert isinstance(other.table, PackedTable)
        assert one.extra_repr() == other.extra_repr()
    torch.testing.assert_close(packed.bags(*RAGGED[1]), model.bags(*RAGGED[1]).detach())
    assert torch.equal(packed.rows(torch.tensor([3])), packed.bags.table(torch.tensor([3])))


def exported(module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> onnx.ModelProto:
    """The graph of `module`, each input of any length, as a user would export it."""
    sizes = tuple(
        {0: torch.export.Dim(f"N{place}") if place < 2 else torch.export.Dim("N0")} for place in range(len(inputs))
    )
    names = [f"input{place}" for place in range(len(inputs))]
    program = torch.onnx.export(
        module.eval(), inputs, dynamo=True, opset_version=OPSET, dynamic_shapes=sizes, input_names=names, verbose=False
    )
    program.model.ir_version = IR_VERSION
    program.save(path)
    return onnx.load(path)


def run(path: Path, *inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {f"input{place}": one.numpy() for place, one in enumerate(inputs)})[0]
    return found


@pytest.mark.filterwarnings("ignore")  # the exporter's notes on itself
@pytest.mark.parametrize(("mode", "padding", "last"), list(product(MODES, [None, PADDING], [False, True])))
def test_offsets_export_without_a_loop(mode: str, padding: int | None, last: bool, tmp_path: Path) -> None:
    module = small(mode, padding, last=last).pack()
    dtype = torch.int32 if last else torch.int64
    graph = exported(module, (RAGGED[0][0].to(dtype), RAGGED[0][1].to(dtype)), tmp_path / "bags.onnx")
    assert standard_faults(graph) == []
    assert {node.op_type for node in graph.graph.node} <= OPERATORS
    for ids, offsets in RAGGED:
        expected = module(ids, offsets).numpy()
        found = run(tmp_path / "bags.onnx", ids.to(dtype), offsets.to(dtype))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_weighted_sums_export(tmp_path: Path) -> None:
    module = small().pack()
    weights = [torch.rand(ids.shape) for ids, _ in RAGGED]
    exported(module, (*RAGGED[0], weights[0]), tmp_path / "bags.onnx")
    for (ids, offsets), factors in zip(RAGGED, weights, strict=True):
        found = run(tmp_path / "bags.onnx", ids, offsets, factors)
        np.testing.assert_allclose(found, module(ids, offsets, factors).numpy(), atol=1e-6)


@pytest.mark.parametrize(("mode", "padding"), list(product(MODES, [None, PADDING])))
def test_even_bags_are_gathered_and_reduced(mode: str, padding: int | None, tmp_path: Path) -> None:
    module = small(mode, padding).pack()
    path = write_graph(build_graph(module, columns=3), tmp_path / "bags.onnx")[0]
    operators = check_graph(path)
    assert operators["Gather"] == 1
    assert not {"ScatterND", "ScatterElements", "Loop"} & set(operators)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for ids in (torch.randint(0, ROWS, (5, 3)), torch.full((1, 3), PADDING), torch.zeros(0, 3)):
        found = session.run(None, {"ids": ids.to(torch.int32).numpy()})[0]
        np.testing.assert_allclose(found, module(ids.to(torch.int32)).numpy(), atol=1e-6)


IDS, OFFSETS = RAGGED[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EmbeddingBag(DenseTable(rows()), "median"), r"unknown mode 'median'.* Allowed: max, mean, sum"),
        (lambda: EmbeddingBag(DenseTable(rows()), "men"), "Did you mean 'mean'"),
        (lambda: Embedding(DenseTable(rows()), ROWS), "padding_idx is 7; the table has rows 0 to 6"),
        (lambda: Embedding(DenseTable(rows()), -8), "padding_idx is -8"),
        (lambda: Embedding.of(nn.Embedding(3, 2, max_norm=1.0)), "max_norm is not supported"),
        (lambda: EmbeddingBag.of(nn.EmbeddingBag(3, 2, scale_grad_by_freq=True)), "scale_grad_by_freq is not"),
        (lambda: small()(IDS), r"ids \[n\] need offsets"),
        (lambda: small()(IDS.reshape(2, 3), OFFSETS), "offsets do not go with them"),
        (lambda: small()(IDS.reshape(1, 2, 3)), "ids have 3 dimensions"),
        (lambda: small()(IDS.float(), OFFSETS), "ids are torch.float32; allowed are int32 and int64"),
        (lambda: Embedding(DenseTable(rows()))(IDS.float()), "ids are torch.float32"),
        (lambda: Embedding(DenseTable(rows()))(IDS + 5), "id 8 is not in the table; allowed are 0 to 6"),
        (lambda: Embedding(small().table)(IDS.int() - 1), "id -1 is not in the table; allowed are 0 to 6"),
        (lambda: small()(IDS + 4, OFFSETS), "id 7 is not in the table"),
        (lambda: small()(IDS, OFFSETS.float()), "offsets are torch.float32"),
        (lambda: small()(IDS, OFFSETS.reshape(3, 1)), r"int64 \[3, 1\]; must be int32 or int64 \[B\]"),
        (lambda: small()(IDS, OFFSETS + 1), "offsets go from 1 to 6; they must begin with 0"),
        (lambda: small()(IDS, OFFSETS * 2), "from 0 to 10; .* stay within the 6 ids"),
        (lambda: small()(IDS, torch.tensor([0, 3, 1])), "never fall"),
        (lambda: small(last=True)(IDS, OFFSETS[:0]), "at least one offset"),
        (lambda: small("max")(IDS, OFFSETS, torch.ones(6)), "go with the mode 'sum', not with 'max'"),
        (lambda: small()(IDS, OFFSETS, torch.ones(5)), r"per_sample_weights are \[5\], must be like the ids \[6\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
