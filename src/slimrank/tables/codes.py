"""The integers that a quantiser may use: what steps on models and on graphs agree on; without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from slimrank.config import InputError

if TYPE_CHECKING:  # graphs are quantised where torch is not installed
    from torch import Tensor


class Codes(NamedTuple):
    """The integers that a quantiser may use: `low` to `high`, both included, and the code of the value zero.

    The zero point may lie between two codes, and may be a tensor that broadcasts like a scale.
    """

    low: int
    high: int
    zero_point: float | Tensor

    @classmethod
    def unsigned(cls, bits: int, *, midrise: bool = False) -> Codes:
        """0 to 2**bits - 1 with zero in the middle, or with `midrise` between the two codes there: what tables store.

        >>> Codes.unsigned(4)
        Codes(low=0, high=15, zero_point=8)
        >>> Codes.unsigned(1, midrise=True)
        Codes(low=0, high=1, zero_point=0.5)
        """
        return cls(0, 2**bits - 1, 2 ** (bits - 1) - 0.5 if midrise else 2 ** (bits - 1))

    @property
    def negative(self) -> float | Tensor:
        """How many steps lie below zero."""
        return self.zero_point - self.low

    @property
    def positive(self) -> float | Tensor:
        """How many steps lie above zero."""
        return self.high - self.zero_point

    @property
    def fraction(self) -> float | Tensor:
        """How far the zero point lies above the code below it: 0 where it is a code."""
        return self.zero_point % 1


# Weights of layers whose inputs are unsigned bytes. Processors with AVX2 and no VNNI add two products of bytes in 16
# bits, and what does not fit is cut off: 2 * 255 * 64 = 32,640 fits, so scores are the same on every processor.
WEIGHT_CODES = Codes(-64, 64, 0)


def check_packs(dim: int, bits: int) -> None:
    """Raises `InputError` where vectors of `dim` numbers take no fewer bytes than they would at twice the bits."""
    if not packs(dim, bits):
        raise InputError(
            f"dimension {dim} does not pack at {bits} bit{'s' * (bits > 1)}: {2 * bits} bits take as few bytes"
        )


def packs(dim: int, bits: int) -> bool:
    """Whether vectors of `dim` numbers of so many bits take fewer bytes than at twice the bits."""
    return bits >= 8 or row_bytes(dim, bits) < row_bytes(dim, 2 * bits)


def row_bytes(dim: int, bits: int) -> int:
    """Bytes of a packed vector of `dim` numbers of so many bits; the last byte may hold fewer than it could.

    >>> row_bytes(dim=50, bits=2)
    13
    """
    return -(-dim * bits // 8)


def affine_from_range(minimum: float, maximum: float, bits: int = 8) -> tuple[float, int]:
    """Scale and zero point of an unsigned affine quantiser whose range holds [minimum, maximum] and zero.

    Zero has a code of its own, so that padding and ReLU are exact. A range of no width gives scale 1.

    >>> affine_from_range(0.0, 255.0)
    (1.0, 0)
    >>> affine_from_range(-1.0, 1.0, bits=2)
    (0.6666666666666666, 2)
    """
    low, high = min(minimum, 0.0), max(maximum, 0.0)
    levels = 2**bits - 1
    scale = (high - low) / levels or 1.0
    return scale, min(max(round(-low / scale), 0), levels)
