"""Step on graphs: dense layers become integers, the ranges of their inputs found on sample rows.

Unsigned activations, signed weights with a scale an output, within 64: the arithmetic of `models/quantized.py`. With 4
bits weights are within 7, rounded together (`graphs/rounding.py`), and stored two a byte. Where
one scale for all inputs of a layer costs it too much, as where embeddings stand beside numbers, each column has its
own, divided out before and multiplied into the weights: wholly, or by the power of it that leaves inputs and weights
together the least error (Xiao et al. 2023, arXiv 2211.10438). Layers take the form that ONNX Runtime multiplies in
integers, which is not the one that they come in: see `graphs/products.py`.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from slimrank.config import Config, InputError, register
from slimrank.graphs.calibration import Seen
from slimrank.graphs.chunks import Floats
from slimrank.graphs.layers import Layer, find_layers
from slimrank.graphs.products import Inputs, Products, keep_integer, packed
from slimrank.graphs.ranges import dequantized, squared_error_scale
from slimrank.graphs.steps import KIND, Context
from slimrank.tables.codes import Codes, affine_from_range

GOOD_ENOUGH = 30.0  # decibels of a layer's outputs over their noise, with one scale for all of its inputs
LEAST = 20.0  # decibels below which a layer stays in floats where no other scale pays
SHARES = (0.25, 0.5, 0.75, 1.0)  # powers of a column's own scale
LOOKED_AT = 1 << 18  # values of a layer's inputs that a scale is searched on


class QuantizeDense(Config):
    """Quantise the weights of MatMul and Gemm to int8, calibrated on `rows` sample rows.

    With `bits` 4 they are stored two a byte, and multiplied as bytes all the same: the file gets smaller. A layer that
    4 bits would leave less than 20 decibels over its noise, or whose weight another reads as well, has 8.
    """

    name: Literal["quantize-dense"] = "quantize-dense"
    rows: int = Field(default=4096, ge=1)
    bits: Literal[4, 8] = 8
    LATER: ClassVar = frozenset({"bits"})


@register(KIND, QuantizeDense)
def quantize_dense(model: ir.Model, config: QuantizeDense, context: Context) -> None:
    """Every dense layer of the graph in integers."""
    layers = []
    for layer in find_layers(model, context):
        if layer.name in context.floats:
            context.skip(layer.name, context.floats[layer.name])
        else:
            layers.append(layer)
    if not layers:
        context.skip("layers", "the graph has no other dense layer of floats")
        return
    if context.rows is None:
        context.skip("layers", "no rows were given to calibrate them on")
        return
    try:
        seen = context.rows.observe(sorted({str(layer.inputs.name) for layer in layers}), config.rows)
    except InputError as error:
        context.skip("layers", f"could not be calibrated. {error}")
        return
    products, users = Products(model.graph), Counter(id(layer.weight) for layer in layers)
    for layer in layers:
        bits = config.bits if users[id(layer.weight)] == 1 else 8
        _quantize(layer, seen[str(layer.inputs.name)], bits, products, context)
    keep_integer(model.graph)


def _quantize(layer: Layer, seen: Seen, bits: int, products: Products, context: Context) -> None:
    """One layer in integers, if it is in floats worth it; what was done and not is noted."""
    values, weight = np.asarray(seen.values, np.float32), layer.matrix()
    if not values.size or not np.isfinite(values).all() or not np.isfinite(weight).all():
        context.skip(layer.name, "it, or what it is fed with on the sample rows, holds NaN or infinity, or nothing")
        return
    before, after = layer.nbytes, weight.size + 4 * weight.shape[1]
    if after >= before:
        context.skip(layer.name, f"would take {after:,} bytes, and takes {before:,} as it is")
        return
    pays = after + 4 * weight.shape[0] < before
    inputs, decibels = found_inputs(values, weight, columns=pays)
    if not pays and decibels < LEAST:
        context.skip(layer.name, f"{decibels:.0f} dB with one scale for its inputs, no fewer bytes with one a column")
        return
    together, told = None, ""
    if bits == 4:
        together, found = in_nibbles(values, weight, inputs)
        if together is None:
            told = f", 8 bits: 4 would leave {found:.0f} dB"
        else:
            after, decibels = after - weight.size // 2, found
    after += inputs.step.nbytes if inputs.step.ndim else 0
    codes = products.put_in_place(layer, weight, inputs, seen.rank, together)
    context.sparse.add(codes)
    if together is not None:
        context.nibbles.add(codes)
    context.layers[codes] = layer.name
    columns = ", a scale a column" if inputs.step.ndim else ""
    context.change(layer.name, f"{before:,} bytes to {after:,}{columns}, {decibels:.0f} dB{told}", before)


def in_nibbles(values: Floats, weight: Floats, inputs: Inputs) -> tuple[NDArray[np.float64] | None, float]:
    """The products [in, in] by which weights are rounded to 4 bits, and the decibels that this leaves.

    None where that would be less than `LEAST`.
    """
    some = values[:: max(1, values.size // LOOKED_AT)]
    read = dequantized(values, inputs.step, _codes(inputs.zero)).astype(np.float64)
    read /= inputs.step if inputs.step.ndim else 1
    products = read.T @ read / len(read)
    decibels = _decibels(some, weight, some @ weight, inputs, products)
    return (None if decibels < LEAST else products), decibels


def found_inputs(values: Floats, weight: Floats, *, columns: bool = True) -> tuple[Inputs, float]:
    """How the inputs `values` [n, in] of a layer become bytes, and the decibels that its outputs are over their noise.

    Values that are never negative get the whole byte. Without `columns` one scale is for all: a layer of few outputs
    would take as many bytes for scales of its inputs as it had.
    """
    values = values[:: max(1, values.size // LOOKED_AT)]
    zero = affine_from_range(float(values.min()), float(values.max()))[1]
    whole = Inputs(squared_error_scale(values.reshape(1, -1), _codes(zero))[0], zero)
    signal = values @ weight
    best, decibels = whole, _decibels(values, weight, signal, whole)
    if decibels >= GOOD_ENOUGH or values.shape[1] == 1 or not columns:
        return best, decibels
    middle = 128 if zero else 0
    own = squared_error_scale(np.ascontiguousarray(values.T), _codes(middle))
    for share in SHARES:
        scaled = Inputs(own**share * own.max() ** (1 - share), middle)
        found = _decibels(values, weight, signal, scaled)
        best, decibels = (scaled, found) if found > decibels else (best, decibels)
    return best, decibels


def _codes(zero: int) -> Codes:
    return Codes(0, 255, zero)


def _decibels(
    values: Floats, weight: Floats, signal: Floats, inputs: Inputs, products: NDArray[np.float64] | None = None
) -> float:
    """Signal to noise of `signal`, values W, where `values` and W are rounded."""
    made = packed(weight, None, inputs, products)
    rounded = made.weight * made.scale / (inputs.step.reshape(-1, 1) if inputs.step.ndim else np.float32(1))
    noise = dequantized(values, inputs.step, _codes(inputs.zero)) @ rounded - signal
    power = float(np.square(noise).mean(dtype=np.float64))
    return float(10 * np.log10(max(float(np.square(signal).mean(dtype=np.float64)), 1e-30) / max(power, 1e-30)))
