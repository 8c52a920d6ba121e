"""The slim model of a run with `stability`: it starts from the base's, keeps most codes, and says how many it kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimrank.models.layers import Network
from slimrank.models.size import packed_bytes
from slimrank.pipeline.base import Base, start_from
from slimrank.recipe import Recipe
from slimrank.training.stability import Anchor, KeepCodes, Stability, anchors_of


@dataclass
class KeptCodes:
    """A slim model that is retrained, what its codes were, and what keeps them."""

    model: Network
    settings: Stability
    anchors: list[Anchor]
    hook: KeepCodes

    @classmethod
    def of(cls, base: Base, model: Network, recipe: Recipe) -> KeptCodes:
        """`model`, which has the shape that the steps gave it, with the weights of the base's slim model.

        Raises:
            InputError: the two do not have the same tensors.
        """
        assert recipe.stability is not None
        anchors = anchors_of(model, start_from(base, model))
        return cls(model, recipe.stability, anchors, KeepCodes(anchors, recipe.stability))

    @staticmethod
    def shaped(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Records of steps that gave a model its shape, without what they found out about weights that it has not."""
        note = "gave the model its shape; weights, zeros and scales are those of the run before"
        facts = ("percent_touched",)
        return [
            {**each, "facts": {key: each["facts"][key] for key in facts if key in each["facts"]}, "note": note}
            for each in records
        ]

    def told(self) -> dict[str, Any]:
        """What was kept in retraining, as a step's record."""
        counts = {anchor.name: anchor.count() for anchor in self.anchors}
        lines = [
            f"{name}: {count['kept']:,} of {count['codes']:,} codes kept, {count['new']:,} new"
            for name, count in counts.items()
        ]
        for line in lines:
            print(f"stability: {line}", file=sys.stderr, flush=True)
        size = packed_bytes(self.model)
        codes, kept = (sum(count[key] for count in counts.values()) for key in ("codes", "kept"))
        return {
            "name": "stability",
            "settings": self.settings.model_dump(mode="json"),
            "touched": lines,
            "skipped": [{"name": name, "reason": "is no code: free to change"} for name in self._free()],
            "touched_bytes": sum(packed_bytes(self.model.get_submodule(name)) for name in counts),
            "bytes_before": size,
            "bytes_after": size,
            "facts": {"codes": codes, "codes kept": kept},
            "note": "",
        }

    def _free(self) -> list[str]:
        """The parameters that are trained and are no codes, with how many numbers they hold."""
        held = {id(anchor.weight) for anchor in self.anchors}
        free = ((name, each) for name, each in self.model.named_parameters() if each.requires_grad)
        return [f"{name} ({each.numel():,})" for name, each in free if id(each) not in held]
