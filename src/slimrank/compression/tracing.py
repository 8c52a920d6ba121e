"""torch-pruning's graph of a module: which layers follow which, as the gradients of its answers tell.

Put right is what torch-pruning takes otherwise: where an answer is (it would cut the layer behind it), layers that are
frozen (they have no gradient), and where neurons are in what is joined or flattened (it guesses that from the layers
around, for minutes where many are added to each other, and fails where an input is joined).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from slimrank.compression.modules import ModuleContext, evaluating, told
from slimrank.config import InputError

JOINS = (torch.cat, torch.concat, torch.concatenate)
GUESSED = ("_ConcatOp", "_ReshapeOp", "_SplitOp", "_UnbindOp", "_ExpandOp")  # from widths around: slowly, often wrongly
Moved = Callable[[Sequence[Any]], list[Any]]


def load_torch_pruning() -> Any:
    """torch-pruning.

    Raises:
        InputError: it is not installed.
    """
    try:
        import torch_pruning
    except ModuleNotFoundError:
        raise InputError(
            'pruning neurons of a module of your own needs torch-pruning: pip install "slimrank[prune]"'
        ) from None
    return torch_pruning


def traced(model: nn.Module, context: ModuleContext) -> Any:
    """torch-pruning's graph of a module as it answers the first batch.

    Raises:
        InputError: torch-pruning is not installed or cannot follow the module, or no answer has a gradient.
    """
    made = load_torch_pruning().DependencyGraph()
    shapes = _Shapes()
    frozen = [each for each in model.parameters() if each.is_floating_point() and not each.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)

    def followed(model: nn.Module, _: object) -> list[Tensor]:
        with shapes:
            answers = context.answer(model)
        # A node of its own behind each answer: torch-pruning knows no other sign that a layer's outputs are answers.
        answers = [each.clone() for each in answers if each.requires_grad]
        if not answers:
            raise InputError("no answer of the module has a gradient, by which its layers are followed")
        return answers

    build = made._build_dependency

    def built(nodes: Mapping[Any, Any]) -> None:
        build(nodes)
        shapes.tell(nodes.values(), made.ops.OPTYPE.ELEMENTWISE)

    made._build_dependency = built
    # Lists and mappings of its own for every call: those that stand in its signatures, or are given, are kept and grow.
    fresh: dict[str, Any] = {
        "unwrapped_parameters": [],
        "customized_pruners": {},
        "ignored_layers": [],
        "ignored_params": [],
    }
    try:
        with evaluating(model), torch.enable_grad():
            made.build_dependency(model, None, forward_fn=followed, verbose=False, **fresh)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"torch-pruning cannot follow the module: {told(error)}") from error
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    return made


class _Shapes(TorchFunctionMode):
    """Notes what is joined and what is flattened while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.joined: dict[Any, list[int]] = {}  # sizes of the parts, by the node of the gradient
        self.shapes: dict[Any, Sequence[int]] = {}  # of results, alike

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in JOINS:
            return self._join(func, args, named)
        result = func(*args, **named)
        if isinstance(result, Tensor) and result.grad_fn is not None:
            self.shapes[result.grad_fn] = tuple(result.shape)
        return result

    def _join(self, func: Callable[..., Any], args: Sequence[Any], named: dict[str, Any]) -> Any:
        parts = list(args[0] if args else named.pop("tensors"))
        place = args[1] if len(args) > 1 else named.pop("dim", named.pop("axis", 0))
        if named or not any(part.requires_grad for part in parts):
            return func(parts, place, **named)
        # A part without a gradient would have no node, and those behind it would begin too early.
        result = func([part if part.requires_grad else _with_node(part) for part in parts], place)
        if place % result.dim() in (1, result.dim() - 1):  # channels of a convolution, or neurons of a linear layer
            self.joined[result.grad_fn] = [part.shape[place] for part in parts]
        return result

    def tell(self, nodes: Iterable[Any], plain: Any) -> None:
        """Have torch-pruning's nodes move neurons to where they are; of those that are `plain` it makes no guess."""
        for node in nodes:
            kind = type(node.module).__name__
            if kind == "_ConcatOp":
                self._tell_joined(node)
            elif kind == "_ReshapeOp":
                self._tell_flat(node)
            if kind in GUESSED:
                node.type = plain

    def _tell_joined(self, node: Any) -> None:
        sizes = self.joined.get(node.grad_fn, [])
        if len(sizes) != len(node.inputs):
            return
        starts = [0, *accumulate(sizes)]
        for place, part in enumerate(node.inputs):
            earlier = sum(each is part for each in node.inputs[:place])  # the same may be joined to itself
            _edges(node, part)[earlier].index_mapping[1] = _by(-starts[place], sizes[place])
            _edges(part, node)[earlier].index_mapping[1] = _by(starts[place], starts[-1])

    def _tell_flat(self, node: Any) -> None:
        """Channels of a convolution [N, C, ...] are as many neurons each, in [N, C * ...], as they have places."""
        before = tuple(getattr(node.grad_fn, "_saved_self_sym_sizes", ()))
        places = prod(before[2:])
        if len(before) < 3 or places == 1 or self.shapes.get(node.grad_fn) != (before[0], before[1] * places):
            return
        for part in node.inputs:
            for edge in _edges(part, node):
                edge.index_mapping[0] = _spread(places)
            for edge in _edges(node, part):
                edge.index_mapping[0] = _gathered(places)


def _with_node(part: Tensor) -> Tensor:
    return part.detach().requires_grad_().clone() if part.is_floating_point() else part


def _by(step: int, size: int) -> Moved:
    """Indices moved by `step`, into a place of that size."""
    return lambda indices: [each._replace(idx=each.idx + step) for each in indices if 0 <= each.idx + step < size]


def _spread(count: int) -> Moved:
    """`count` indices for each, one after the other."""
    return lambda indices: [
        each._replace(idx=inner) for each in indices for inner in range(each.idx * count, (each.idx + 1) * count)
    ]


def _gathered(count: int) -> Moved:
    """One index for each `count` of them."""
    return lambda indices: list(dict.fromkeys(each._replace(idx=each.idx // count) for each in indices))


def _edges(source: Any, target: Any) -> list[Any]:
    return [edge for edge in source.dependencies if edge.target is target]
