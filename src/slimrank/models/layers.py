"""The layers that the architectures share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from slimrank.config import InputError
from slimrank.tables.embedding import FusedEmbedding, Layout, Row


class Network(nn.Module):
    """What every model is: ids and numbers of rows in, through one fused table; a `Ranker` or a `Finder`.

    `reads_linearly`: nothing but layers of the kind `InputLinear` reads the row.
    """

    reads_linearly = False

    def __init__(self, embedding: FusedEmbedding):
        super().__init__()
        self.embedding = embedding


class Finder(Network):
    """Answers with items: `catalogue` is the field whose ids they are, None where items are encoded as queries are."""

    catalogue: str | None = None

    @property
    def num_items(self) -> int:
        """Local ids of the catalogue's field, those of padding and out of vocabulary among them."""
        layout = self.embedding.layout
        assert self.catalogue is not None
        return layout.sizes[layout.names.index(self.catalogue)]

    @property
    def first_item(self) -> int:
        """The first local id that is an item, after padding and out of vocabulary."""
        return 1 + (self.catalogue in self.embedding.layout.sequences)

    def met(self, ids: Tensor) -> Tensor | None:
        """Local ids [N, L] int64 of the items that the queries `ids` [N, K] tell of, padding among them, or None."""
        if self.catalogue not in self.embedding.layout.sequences:
            return None
        layout = self.embedding.layout
        place = layout.names.index(self.catalogue or "")
        start = sum(layout.widths[:place])
        return ids[:, start : start + layout.widths[place]].long()


class Encoder(Finder):
    """A query to a vector; the catalogue's items have vectors as well, and the score of an item is their product."""

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """`ids` [N, K] int32 local ids and `numbers` [N, M] float32 of queries to vectors [N, D] float32."""
        raise NotImplementedError

    def items(self, ids: Tensor) -> Tensor:
        """Vectors [M, D] of the items with the local ids `ids` [M] of the catalogue's field."""
        raise NotImplementedError

    def all_items(self) -> Tensor:
        """Vectors [num_items, D] of all local ids of the catalogue."""
        return self.items(torch.arange(self.num_items, device=self.embedding.offsets.device))


class SequenceEncoder(Encoder):
    """An encoder of one sequence of items, which are the catalogue; it has a state after every place.

    Ids stand at the front and padding behind. In an exported graph the sequences may be as short as the longest of a
    request.
    """

    def __init__(self, embedding: FusedEmbedding):
        layout = embedding.layout
        if len(layout.sequences) != 1:
            raise InputError(f"a sequence model reads one sequence field, this data has {len(layout.sequences)}")
        super().__init__(embedding)
        self.catalogue = layout.sequences[0]
        self.length = layout.widths[layout.names.index(self.catalogue)]

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Vectors [N, D] after the last item of the histories in `ids`."""
        met = ids if len(self.embedding.layout.names) == 1 else self.met(ids)
        assert met is not None
        return self.encode(met)

    def items(self, ids: Tensor) -> Tensor:
        """Rows [M, D] of the item table."""
        return self.item_vectors(ids)

    def item_vectors(self, ids: Tensor) -> Tensor:
        """Rows [..., D] of the item table at local ids `ids` [...]."""
        layout = self.embedding.layout
        start = layout.starts[layout.names.index(self.catalogue or "")]
        vectors: Tensor = self.embedding.table(ids + start if start else ids)
        return vectors

    def states(self, met: Tensor) -> Tensor:
        """States [N, L', D] after each place of `met` [N, L], L' being the length of the longest history."""
        raise NotImplementedError

    def encode(self, met: Tensor) -> Tensor:
        """States [N, D] after the last item of `met` [N, L]."""
        raise NotImplementedError


def trimmed(met: Tensor) -> Tensor:
    """`met` [N, L] without the places that are padding in all rows; one place is left at least."""
    longest = int((met != 0).sum(dim=1).max()) if len(met) else 0
    return met[:, : max(longest, 1)]


def of_like_length(met: Tensor, pieces: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """The rows of `met` [N, L] in that many pieces of like length, by their numbers, and the order that puts them back.

    Each piece is as wide as its longest: attention costs the square of that.
    """
    order = (met != 0).sum(dim=1).argsort()
    return order.chunk(max(pieces, 1)), order.argsort()


def by_row(layer: nn.Module, values: Tensor) -> Tensor:
    """A dense layer on vectors [..., in]: rows of one matrix, which a graph knows how to multiply as integers."""
    rows: Tensor = layer(values.flatten(0, -2))
    return rows.view(*values.shape[:-1], rows.shape[1])


class ItemScorer(Finder):
    """A history to the scores of all items, without vectors; its weights have a closed form and need no loop.

    In an exported graph the histories may be as short as the longest of a request.
    """

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """`ids` [N, K] int32 local ids and `numbers` [N, M] float32 of queries to scores [N, num_items] float32."""
        raise NotImplementedError

    def solve(self, ids: Tensor, label: Tensor, group: Tensor | None) -> float:
        """Find the weights that train rows give: `ids` [N, K], `label` [N] items, `group` [N] users; the loss left."""
        raise NotImplementedError


class Ranker(Network):
    """Ids and numbers in, one logit a row out: `score` goes from the row's vectors to logits [N]."""

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """`ids` [N, K] int32 local ids and `numbers` [N, M] float32 to logits [N] float32."""
        return self.score(ids, self.row(ids, numbers))

    def row(self, ids: Tensor, numbers: Tensor | None) -> Row:
        """The vectors and numbers of N rows."""
        if numbers is None:
            numbers = ids.new_zeros((ids.shape[0], 0), dtype=torch.float32)
        row: Row = self.embedding(ids, numbers)
        return row

    def score(self, ids: Tensor, row: Row) -> Tensor:
        """Logits [N] of rows whose vectors were looked up; `ids` are there for models with a second table."""
        raise NotImplementedError


class InputLinear(nn.Module):
    """The first dense layer over a row: one matrix for what is looked up, one for all else, their products added.

    Apart, because looked-up codes can feed an integer product as they are, while numbers of other sizes under the same
    activation scale would lose the small embeddings in rounding. With `folded`, the product of what is looked up is
    done ahead of time once the model is packed (`models/folded.py`); until then it changes nothing.
    """

    folded = False

    def __init__(self, layout: Layout, dim: int, out_features: int):
        super().__init__()
        looked_up = layout.num_categorical * dim
        others = len(layout.sequences) * dim + layout.numbers
        self.lookups: nn.Module | None = nn.Linear(looked_up, out_features) if looked_up else None
        self.others = nn.Linear(others, out_features, bias=self.lookups is None) if others else None
        self.out_features = out_features

    def forward(self, row: Row) -> Tensor:
        """[N, out_features]."""
        parts = []
        if self.lookups is not None:
            parts.append(self.lookups(row.lookups.flatten(1)))
        if self.others is not None:
            parts.append(self.others(row.others))
        total: Tensor = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return total


class ByteDropout(nn.Module):
    """Dropout that draws one random byte a number: `p` is rounded to 1/256, and the scale is that of the rounded p.

    On a CPU the Bernoulli draws of `nn.Dropout` take as long as half of a layer's matrix products.
    """

    def __init__(self, p: float):
        super().__init__()
        self.cut = min(max(round(p * 256), 1), 255) if p > 0 else 0

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.cut == 0:
            return values
        words = torch.empty((values.numel() + 7) // 8, dtype=torch.int64, device=values.device)
        draws = words.random_(-(2**63), None).view(torch.uint8)[: values.numel()].view(values.shape)
        return values * (draws >= self.cut).to(values.dtype).mul_(256 / (256 - self.cut))

    def extra_repr(self) -> str:
        return f"p={self.cut}/256"


class MLP(nn.Module):
    """Linear layers with ReLU (and, where asked, batch normalisation before it and dropout after it) between.

    `widths` are the hidden widths; `first` turns the input into the first of them. Its output is [N, widths[-1]].
    """

    def __init__(self, first: nn.Module, widths: Sequence[int], *, dropout: float = 0.0, batch_norm: bool = False):
        super().__init__()
        linears: list[nn.Module] = [first]
        linears += [nn.Linear(before, after) for before, after in pairwise(widths)]
        self.linears = nn.ModuleList(linears)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if batch_norm else nn.Identity() for width in widths)
        self.dropout = ByteDropout(dropout)

    def forward(self, inputs: Row | Tensor) -> Tensor:
        """[N, widths[-1]]."""
        hidden: Row | Tensor = inputs
        for linear, norm in zip(self.linears, self.norms, strict=True):
            hidden = self.dropout(torch.relu(norm(linear(hidden))))
        assert isinstance(hidden, Tensor)
        return hidden

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Batch normalisation, which is a constant scale and shift outside training, becomes part of the layer before.

        W' = diag(g) W and b' = g (b - mean) + beta, with g = gamma / sqrt(variance + eps).
        """
        for index, norm in enumerate(self.norms):
            if not isinstance(norm, nn.BatchNorm1d):
                continue
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            for part in matrices(self.linears[index]):
                part.weight.mul_(gain.unsqueeze(1))
                if part.bias is not None:
                    part.bias.sub_(norm.running_mean).mul_(gain).add_(norm.bias)
            self.norms[index] = nn.Identity()


def matrices(layer: nn.Module) -> list[nn.Linear]:
    """The linear layers whose products a layer adds."""
    parts = [layer.lookups, layer.others] if isinstance(layer, InputLinear) else [layer]
    return [part for part in parts if isinstance(part, nn.Linear)]


def row_mlp(layout: Layout, dim: int, widths: Sequence[int], *, dropout: float, batch_norm: bool) -> MLP:
    """An MLP that reads a row."""
    return MLP(InputLinear(layout, dim, widths[0]), widths, dropout=dropout, batch_norm=batch_norm)


def tensor_mlp(width: int, widths: Sequence[int], *, dropout: float = 0.0, batch_norm: bool = False) -> MLP:
    """An MLP that reads vectors [N, width]."""
    return MLP(nn.Linear(width, widths[0]), widths, dropout=dropout, batch_norm=batch_norm)


def row_width(layout: Layout, dim: int) -> int:
    """Numbers in `Row.flat`."""
    return len(layout.names) * dim + layout.numbers
