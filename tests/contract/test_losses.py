"""What every registered loss promises."""

from __future__ import annotations

import pytest
import torch

from slimrank.config import InputError, as_config, entries
from slimrank.data.schema import Answer
from slimrank.training.examples import Examples
from slimrank.training.losses.loss import DEFAULT, SOFT, objective_of

NAMES = sorted(entries("loss"))
OF_ENCODERS = {"catalogue-softmax", "in-batch-softmax"}  # they ask a model for vectors: their own tests have one


def batch(answer: Answer, teacher: bool = True) -> Examples:
    """Seven rows: a query of three, one of one, one of two without a relevant row, and one more."""
    nothing, label = torch.zeros(7, 0), torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    scores = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0, 1.0, -3.0])
    return Examples(nothing, nothing, label, scores if teacher else None, torch.tensor([4, 4, 4, 1, 7, 7, 9]), answer)


def answer_of(name: str) -> Answer:
    return "click" if name in ("cross-entropy", "soft-labels") else "relevance"


@pytest.mark.parametrize("name", NAMES)
def test_the_config_survives_json_and_says_what_it_is(name: str) -> None:
    config = entries("loss")[name].config()
    assert config.name == name
    assert as_config("loss", config.model_dump(mode="json")) == config
    assert entries("loss")[name].summary.endswith((".", ";"))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_ENCODERS])
def test_a_loss_of_logits_is_a_finite_scalar_with_finite_gradients(name: str) -> None:
    logit = torch.tensor([0.1, 0.2, 0.2, -5.0, 40.0, -40.0, 0.0], requires_grad=True)
    found = objective_of(as_config("loss", name), answer_of(name))(logit, batch(answer_of(name)))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.shape == ()
    assert found.isfinite()
    assert logit.grad is not None
    assert logit.grad.isfinite().all()


@pytest.mark.parametrize("name", SOFT.values())
def test_soft_labels_without_teachers_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"loss '{name}' learns from teachers"):
        objective_of(as_config("loss", name), answer_of(name))(torch.zeros(7), batch(answer_of(name), teacher=False))


def test_every_answer_has_a_loss() -> None:
    assert set(DEFAULT.values()) <= set(NAMES)
