"""Ensembles of trees as ai.onnx.ml writes them, and as its version 5 does: `TreeEnsemble`, with nothing said twice.

`TreeEnsembleClassifier` and `TreeEnsembleRegressor` say of every node, a leaf too, which tree and which place in it the
node has, and spell out how it compares. `TreeEnsemble` needs neither: leaves stand apart, and alike ones once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.exporting.constants import constant, node_before
from slimrank.graphs.attributes import ML, array, text
from slimrank.graphs.linear import AFTER, chosen, labels_of
from slimrank.graphs.rewriting import take_over

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trees:
    """An ensemble: branching nodes, and leaves, each with a weight for one target; a child below 0 is leaf ~child."""

    roots: Ints
    features: Ints
    splits: NDArray[np.float32]
    modes: NDArray[np.uint8]
    missing: Ints
    when_true: Ints
    when_false: Ints
    targets: Ints
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, node: ir.Node) -> Trees:
        """What the lists of an ensemble say.

        Raises:
            InputError: they say what `TreeEnsemble` cannot.
        """
        if any(name.endswith("_as_tensor") for name in node.attributes):
            raise InputError("holds numbers of double precision")
        tree, place = array(node, "nodes_treeids", np.int64), array(node, "nodes_nodeids", np.int64)
        names = list(node.attributes["nodes_modes"].value)
        unknown = set(names) - {*MODES, "LEAF"}
        if unknown:
            raise InputError(f"compares by {', '.join(sorted(map(str, unknown)))}")
        leaf = np.array([name == "LEAF" for name in names])
        keys = _Keys(tree, place)
        leaf_of, targets, weights = _leaves(node, keys, leaf)
        own = np.where(leaf, ~leaf_of, np.cumsum(~leaf) - 1)
        children = [keys.find(tree, array(node, f"nodes_{side}nodeids", np.int64)) for side in ("true", "false")]
        missing = array(node, "nodes_missing_value_tracks_true", np.int64)
        inner = ~leaf
        found = cls(
            roots=own[_roots(tree, inner, children)],
            features=array(node, "nodes_featureids", np.int64)[inner],
            splits=array(node, "nodes_values", np.float32)[inner],
            modes=np.array([MODES.index(name) for name in names if name != "LEAF"], np.uint8),
            missing=missing[inner] if missing.size else np.zeros(int(inner.sum()), np.int64),
            when_true=own[children[0]][inner],
            when_false=own[children[1]][inner],
            targets=targets,
            weights=weights,
        )
        return found._with_branches()

    def _with_branches(self) -> Trees:
        """Roots that are leaves become branches both of whose children are that leaf."""
        alone = self.roots < 0
        added = int(alone.sum())
        roots = self.roots.copy()
        roots[alone] = len(self.features) + np.arange(added)
        zeros = np.zeros(added, np.int64)
        return Trees(
            roots=roots,
            features=np.append(self.features, zeros),
            splits=np.append(self.splits, zeros.astype(np.float32)),
            modes=np.append(self.modes, zeros.astype(np.uint8)),
            missing=np.append(self.missing, zeros),
            when_true=np.append(self.when_true, self.roots[alone]),
            when_false=np.append(self.when_false, self.roots[alone]),
            targets=self.targets,
            weights=self.weights,
        )

    def node(self, x: ir.Value, targets: int, aggregate: int, name: str | None) -> ir.Node:
        """The operator of version 5 that answers with the sums [N, targets] of `x` [N, F] float32."""
        sides = {"true": self.when_true, "false": self.when_false}
        lists = {"tree_roots": self.roots, "nodes_featureids": self.features, "leaf_targetids": self.targets}
        lists |= {f"nodes_{side}nodeids": np.where(each < 0, ~each, each) for side, each in sides.items()}
        lists |= {f"nodes_{side}leafs": (each < 0).astype(np.int64) for side, each in sides.items()}
        if self.missing.any():
            lists["nodes_missing_value_tracks_true"] = self.missing
        tensors = {"nodes_splits": self.splits, "nodes_modes": self.modes, "leaf_weights": self.weights}
        attributes = {key: ir.AttrInt64s(key, each.tolist()) for key, each in lists.items()}
        attributes |= {key: ir.AttrTensor(key, ir.tensor(each)) for key, each in tensors.items()}
        attributes["n_targets"] = ir.AttrInt64("n_targets", targets)
        attributes["aggregate_function"] = ir.AttrInt64("aggregate_function", aggregate)
        return ir.Node(ML, "TreeEnsemble", [x], attributes.values(), name=name)


class _Keys:
    """Nodes by tree and place in it."""

    def __init__(self, tree: Ints, place: Ints):
        self.width = int(place.max()) + 2
        keys = tree * self.width + place
        self.order = np.argsort(keys, kind="stable")
        self.sorted = keys[self.order]
        if (np.diff(self.sorted) == 0).any():
            raise InputError("has two nodes of one place")

    def find(self, tree: Ints, place: Ints) -> Ints:
        """Where among all nodes those are."""
        wanted = tree * self.width + place
        near = np.searchsorted(self.sorted, wanted).clip(max=len(self.sorted) - 1)
        if (self.sorted[near] != wanted).any():
            raise InputError("names nodes that it does not have")
        found: Ints = self.order[near]
        return found


def _leaves(node: ir.Node, keys: _Keys, leaf: NDArray[np.bool_]) -> tuple[Ints, Ints, NDArray[np.float32]]:
    """For every node the leaf that it is, and of every leaf target and weight; leaves that are alike are one."""
    kind = "class" if node.op_type == "TreeEnsembleClassifier" else "target"
    trees, places = (array(node, f"{kind}_{which}ids", np.int64) for which in ("tree", "node"))
    where = keys.find(trees, places)
    if len(np.unique(where)) < len(where) or not leaf[where].all():
        raise InputError("has leaves of several classes or targets, which TreeEnsemble has not")
    target, weight = np.zeros(len(leaf), np.int64), np.zeros(len(leaf), np.float32)
    target[where] = array(node, f"{kind}_ids", np.int64)
    weight[where] = array(node, f"{kind}_weights", np.float32)
    both = np.stack([target, weight.view(np.int32).astype(np.int64)], axis=1)
    _, first, alike = np.unique(both[leaf], axis=0, return_index=True, return_inverse=True)
    leaf_of = np.zeros(len(leaf), np.int64)
    leaf_of[leaf] = alike.reshape(-1)
    return leaf_of, target[leaf][first], weight[leaf][first]


def _roots(tree: Ints, inner: NDArray[np.bool_], children: list[Ints]) -> Ints:
    """The node of each tree, in the order of trees, that is no other's child."""
    free = np.ones(len(tree), bool)
    for each in children:
        free[each[inner]] = False
    roots = np.flatnonzero(free)
    if len(np.unique(tree[roots])) < len(roots) or len(roots) != len(np.unique(tree)):
        raise InputError("has trees without one root")
    return roots


def pack(node: ir.Node, trees: Trees) -> ir.Node:
    """Exchange an ensemble for the packed one and what makes its answers of sums; the packed one.

    Raises:
        InputError: no standard operator makes its answers.
    """
    x = node.inputs[0]
    assert x is not None
    assert node.graph is not None
    if x.dtype == ir.DataType.DOUBLE:
        raise InputError("reads numbers of double precision")
    if x.dtype != ir.DataType.FLOAT:
        x = node_before(node, "Cast", [x], to=int(ir.DataType.FLOAT))[0]
    labels = labels_of(node)
    classifies = node.op_type == "TreeEnsembleClassifier"
    after = AFTER.get(text(node, "post_transform", "NONE"))
    if after is None or (classifies and labels is None):
        raise InputError("answers by a function that is no standard operator")
    two = classifies and labels is not None and labels.size == 2 and len(np.unique(trees.targets)) == 1
    wanted = 1 if two else labels.size if labels is not None else node.attributes.get_int("n_targets", 1)
    aggregate = AGGREGATES.index(text(node, "aggregate_function", "SUM"))
    kept = Trees(**{**vars(trees), "targets": np.zeros_like(trees.targets)}) if two else trees
    packed = kept.node(x, wanted, aggregate, node.name)
    node.graph.insert_before(node, packed)
    score = packed.outputs[0]
    base = array(node, "base_values", np.float32)
    if base.size not in (0, wanted):
        raise InputError(f"has {base.size} base values for {wanted} sums")
    if base.any():
        score = node_before(node, "Add", [score, constant(node.graph, base, f"{node.outputs[0].name}.base")])[0]
    if not classifies or labels is None:
        take_over(node, [node_before(node, after, [score])[0] if after else score])
    elif two:
        take_over(node, _of_two(node, score, labels, after, positive=bool((trees.weights >= 0).all())))
    else:
        best = node_before(node, "ArgMax", [score], axis=1, keepdims=0)[0]
        take_over(node, [chosen(node, labels, best), node_before(node, after, [score])[0] if after else score])
    return packed


def _of_two(node: ir.Node, score: ir.Value, labels: ir.TensorProtocol, after: str, *, positive: bool) -> list[ir.Value]:
    """Label and scores of two classes from the sum of one [N, 1]: a probability, where no weight is negative."""
    assert node.graph is not None
    stem = str(node.outputs[-1].name)
    bound = constant(node.graph, np.array(0.5 if positive else 0.0, np.float32), f"{stem}.bound")
    flat = constant(node.graph, np.array([-1], np.int64), f"{stem}.flat")
    above = node_before(node, "Greater", [node_before(node, "Reshape", [score, flat])[0], bound])[0]
    label = chosen(node, labels, node_before(node, "Cast", [above], to=int(ir.DataType.INT64))[0])
    if positive and not after:
        one = constant(node.graph, np.array(1.0, np.float32), f"{stem}.one")
        other = node_before(node, "Sub", [one, score])[0]
    else:
        other = node_before(node, "Neg", [score])[0]
    both = node_before(node, "Concat", [other, score], axis=1)[0]
    return [label, node_before(node, after, [both])[0] if after else both]
