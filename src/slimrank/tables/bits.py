"""Small integers side by side without a gap, read by the row: what codes of any width take, to the bit.

A value of b bits begins anywhere in a byte, so it lies within the (b + 14) // 8 bytes from there on. They are gathered,
put together in one integer and cut. Left out: widths that divide 8 and rows of whole bytes, which `integer.py` unpacks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from slimrank.tables.integer import divide, modulo


def span(bits: int) -> int:
    """Bytes in which a value of that width lies, wherever it begins: 2 for 2 to 9 bits."""
    return (bits + 14) // 8


def pack_bits(values: Tensor, bits: int) -> Tensor:
    """`values` [n], each below 2 ** bits, in bytes [ceil(n * bits / 8)] uint8, the first in the lowest bits.

    >>> pack_bits(torch.tensor([1, 2, 3]), 3).tolist()
    [209, 0]
    """
    parts = []
    for start in range(0, len(values), 1 << 21):  # a multiple of 8 values: every part ends at the end of a byte
        part = values[start : start + (1 << 21)].cpu().numpy().astype("<u4")
        each = np.unpackbits(part[:, None].view(np.uint8), axis=1, bitorder="little")[:, :bits]
        parts.append(torch.from_numpy(np.packbits(each.reshape(-1), bitorder="little")))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.uint8)


def read_bits(packed: Tensor, at: Tensor, size: Tensor, count: int) -> Tensor:
    """The values that begin at the bits `at` [...] int64 of `packed` [bytes, 1] uint8, each below `size`, a power of 2.

    `count` is the `span` of the widest; that many bytes must follow every value's first, so `packed` ends in zeros.
    """
    byte, shift = divide(at, 8), modulo(at, 8)
    near = byte.unsqueeze(-1) + torch.arange(count, device=at.device)
    powers = torch.tensor([1 << 8 * place for place in range(count)], device=at.device)
    whole = (functional.embedding(near, packed).squeeze(-1).to(torch.int64) * powers).sum(dim=-1)
    halves = torch.tensor([1 << place for place in range(8)], device=at.device)
    return modulo(divide(whole, halves[shift]), size)
