"""torch-pruning's graph of a module: which layers follow which, as the gradients of its answers tell.

Put right is what torch-pruning takes otherwise: where an answer is (it would cut the layer behind it), layers that are
frozen (they have no gradient), and where the parts of what is joined begin (it guesses that from the layers around).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from slimrank.compression.modules import ModuleContext, evaluating, told
from slimrank.config import InputError

JOINS = (torch.cat, torch.concat, torch.concatenate)


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
    joins = _Joins()
    frozen = [each for each in model.parameters() if each.is_floating_point() and not each.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)

    def followed(model: nn.Module, _: object) -> list[Tensor]:
        with joins:
            answers = context.answer(model)
        # A node of its own behind each answer: torch-pruning knows no other sign that a layer's outputs are answers.
        answers = [each.clone() for each in answers if each.requires_grad]
        if not answers:
            raise InputError("no answer of the module has a gradient, by which its layers are followed")
        return answers

    build = made._build_dependency

    def built(nodes: Mapping[Any, Any]) -> None:
        build(nodes)
        joins.tell(nodes.values())  # before they are guessed, which fails for some

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


class _Joins(TorchFunctionMode):
    """Notes the sizes of what is joined while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[Any, list[int]] = {}  # by the node of the gradient

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func not in JOINS:
            return func(*args, **named)
        parts = list(args[0] if args else named.pop("tensors"))
        place = args[1] if len(args) > 1 else named.pop("dim", named.pop("axis", 0))
        if named or not any(part.requires_grad for part in parts):
            return func(parts, place, **named)
        # A part without a gradient would have no node, and those behind it would begin too early.
        joined = func([part if part.requires_grad else _with_node(part) for part in parts], place)
        self.sizes[joined.grad_fn] = [part.shape[place] for part in parts]
        return joined

    def tell(self, nodes: Iterable[Any]) -> None:
        """Have the nodes of torch-pruning's graph move neurons to where they are in what is joined."""
        for node in nodes:
            sizes = self.sizes.get(node.grad_fn, [])
            if len(sizes) != len(node.inputs) or type(node.module).__name__ != "_ConcatOp":
                continue
            node.module.concat_sizes = sizes
            starts = [0, *accumulate(sizes)]
            for place, part in enumerate(node.inputs):
                earlier = sum(each is part for each in node.inputs[:place])  # the same may be joined to itself
                _edges(node, part)[earlier].index_mapping[1] = _by(-starts[place], sizes[place])
                _edges(part, node)[earlier].index_mapping[1] = _by(starts[place], starts[-1])


def _with_node(part: Tensor) -> Tensor:
    return part.detach().requires_grad_().clone() if part.is_floating_point() else part


def _by(step: int, size: int) -> Callable[[Sequence[Any]], list[Any]]:
    """A mapping of indices by `step`, into a place of that size."""

    def moved(indices: Sequence[Any]) -> list[Any]:
        return [each._replace(idx=each.idx + step) for each in indices if 0 <= each.idx + step < size]

    return moved


def _edges(source: Any, target: Any) -> list[Any]:
    return [edge for edge in source.dependencies if edge.target is target]
