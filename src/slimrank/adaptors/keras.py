"""Keras 3 under its torch backend: a model is cloned with its Embedding and Dense layers exchanged for torch's.

The clone is a Keras model and a module of torch at once: steps change the layers of torch inside it, and afterwards
Keras trains, saves weights and predicts with what they made. Left out: models that are subclasses of `keras.Model` with
a `call` of their own, which Keras cannot clone, and the other backends.
"""

from __future__ import annotations

import copy
from typing import Any

import keras
import torch
from torch import Tensor, nn

from slimrank.adaptors.adaptor import Adaptor, whole
from slimrank.config import InputError
from slimrank.models.attention import linear_of


class Taken(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """A layer of Keras whose work a layer of torch does, the one of that name in `inner`, which steps exchange.

    Keras knows neither the layer that it stands for nor that of torch, until `track` tells it of the latter: it would
    keep the weights of both.
    """

    def __init__(self, source: Any, inner: nn.ModuleDict):
        super().__init__(name=source.name)
        self.supports_masking = source.supports_masking
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "inner", inner)
        self.built = True

    @property
    def layer(self) -> nn.Module:
        """The layer of torch."""
        return self.inner[key_of(self.source)]  # type: ignore[no-any-return]

    def call(self, inputs: Any) -> Any:
        """What the layer of torch gives, with the activation of the layer of Keras."""
        if isinstance(self.source, keras.layers.Embedding):
            return self.layer(inputs.to(torch.int64))
        values = self.layer(inputs)
        return values if self.source.activation is None else self.source.activation(values)

    def compute_output_spec(self, inputs: Any) -> Any:
        """As the layer of Keras."""
        return self.source.compute_output_spec(inputs)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """As the layer of Keras."""
        return self.source.compute_mask(inputs, previous_mask)

    def track(self) -> None:
        """Let Keras know of the parameters of the layer, which it trains and saves from now on."""
        for parameter in self.layer.parameters():
            variable = keras.Variable(parameter, trainable=parameter.requires_grad)
            variable._value = parameter  # itself: what Keras trains is what the layer has
            self._track_variable(variable)


class Clone(nn.Module):
    """A clone of a model of Keras, and the layers of torch in it, where torch finds them."""

    def __init__(self, model: Any, layers: nn.ModuleDict):
        super().__init__()
        self.layers = layers
        self.model = model

    def forward(self, inputs: Any) -> Any:
        """The answer of the model to a tensor, or a list or mapping of them."""
        return self.model(inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Clone:
        """Keras copies a model by writing it down, which it cannot do with layers of others."""
        return cloned(self.model, memo)


def prepare(model: Any) -> nn.Module:
    """A clone of a functional or sequential model, with the same weights.

    Raises:
        InputError: the backend is not torch, it is no model, or one with a call of its own.
    """
    if keras.backend.backend() != "torch":
        backend = keras.backend.backend()
        raise InputError(f"keras runs on {backend}: set KERAS_BACKEND=torch before it is imported for the first time")
    if not isinstance(model, keras.Model):
        raise InputError(f"a {type(model).__name__} of keras cannot be compressed. Allowed: its models")
    return cloned(model, {})


def cloned(model: Any, memo: dict[int, Any]) -> Clone:
    """The clone; `memo` is that of a deep copy."""
    layers = nn.ModuleDict()
    try:
        clone = keras.models.clone_model(model, clone_function=lambda layer: _exchanged(layer, layers, memo))
    except ValueError as error:
        raise InputError(f"keras cannot clone the model: {error}") from error
    for ours, theirs in zip(clone.layers, model.layers, strict=True):
        if not isinstance(ours, Taken):
            ours.set_weights(theirs.get_weights())
    return Clone(clone, layers)


def key_of(layer: Any) -> str:
    """The name of a layer as torch takes it."""
    return str(layer.name).replace(".", "_")


def _exchanged(layer: Any, layers: nn.ModuleDict, memo: dict[int, Any]) -> Any:
    """What stands for a layer in the clone; if torch does its work, its layer is added to `layers`.

    Raises:
        InputError: the layer is a model itself, or another one has its name.
    """
    if isinstance(layer, keras.Model):
        raise InputError(f"{layer.name}: models inside models of keras are not taken; give the inner one by itself")
    if key_of(layer) in layers:
        raise InputError(f"{layer.name}: two layers have this name, points counting as underscores")
    if isinstance(layer, Taken):
        layers[key_of(layer)] = copy.deepcopy(layer.layer, memo)
        return Taken(layer.source, layers)
    if type(layer) is keras.layers.Embedding:
        layers[key_of(layer)] = _embedding_of(layer.embeddings.value)
        return Taken(layer, layers)
    if type(layer) is keras.layers.Dense:
        bias = layer.bias.value if layer.use_bias else None
        layers[key_of(layer)] = linear_of(layer.kernel.value.T, bias)
        return Taken(layer, layers)
    return layer.__class__.from_config(layer.get_config())


def _embedding_of(rows: Tensor) -> nn.Embedding:
    """An embedding over a copy of `rows`."""
    made = nn.Embedding(rows.shape[0], rows.shape[1], device="meta")
    made.weight = nn.Parameter(rows.detach().clone(), requires_grad=rows.requires_grad)
    return made


def finish(module: nn.Module) -> Any:
    """The model of Keras, which knows of the layers that steps made."""
    assert isinstance(module, Clone)
    for layer in module.model.layers:
        if isinstance(layer, Taken):
            layer.track()
    return module.model


ADAPTOR = Adaptor(prepare, whole, finish)
