"""What a step must tell: what it touched, what it skipped and why; without torch, since steps on graphs tell it too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from slimrank.config import Config, name_of


@dataclass
class Told:
    """The record of what a step did, as it does it."""

    touched: list[str] = field(default_factory=list, kw_only=True)
    skipped: list[dict[str, str]] = field(default_factory=list, kw_only=True)
    facts: dict[str, Any] = field(default_factory=dict, kw_only=True)
    touched_bytes: int = field(default=0, kw_only=True)

    def touch(self, what: str, nbytes: int = 0) -> None:
        """Note that a part of the model was changed, and the bytes that it took."""
        self.touched.append(what)
        self.touched_bytes += nbytes

    def skip(self, what: str, why: str) -> None:
        """Note that a part of the model was left as it was, and the reason."""
        self.skipped.append({"name": what, "reason": why})

    def note(self, **facts: Any) -> None:
        """Note a number that the step chose or found."""
        self.facts |= facts

    def forget(self) -> None:
        """Begin anew, for the next step."""
        self.touched, self.skipped, self.facts, self.touched_bytes = [], [], {}, 0

    def record(self, step: Config, before: int, after: int) -> dict[str, Any]:
        """What is kept of `step`: with what was noted, its settings and the packed bytes `before` and `after` it."""
        return {
            "name": name_of(step),
            "settings": step.model_dump(mode="json", exclude={"name"}),
            "touched": self.touched,
            "skipped": self.skipped,
            "touched_bytes": self.touched_bytes,
            "bytes_before": before,
            "bytes_after": after,
            "facts": self.facts,
            "note": ", ".join(f"{name} {value:.4g}" for name, value in self.facts.items()),
        }
