"""The first layer done ahead of time: rows of tables multiplied by their slice of its weights, so that it is a sum.

    W x + b,  x = [v_1, ..., v_K]   =   sum over fields f of (W_f v_f) + b

and W_f v_f depends on the id of field f alone. So the packed model looks up rows W_f v_f [hidden] and adds them. They
are computed from the packed tables and the weights when a graph is loaded: the artifact stores both as they are. For
joined fields (see `tables/joined.py`) the joined table holds the sums of its fields' rows. PCA of tables folded into
their layer is another thing (AFM, arXiv 2405.18146): it makes rows shorter. Left out: layers of integers, whose sums
would have to be kept in 32 bits.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn

from slimrank.models.layers import InputLinear
from slimrank.tables.by_row import every_row
from slimrank.tables.embedding import FusedEmbedding
from slimrank.tables.joined import lookups_of, places, sizes_of
from slimrank.tables.table import gather_rows


class FoldedEmbedding(FusedEmbedding):
    """Packed form: `lookups` of a row are [N, 1, hidden], the first layer's output and not its input.

    `weight` [hidden, K * dim] and `bias` [hidden] are those of the layer.
    """

    weight: Tensor
    bias: Tensor
    ones: Tensor
    places: Tensor
    firsts: Tensor

    def __init__(self, source: FusedEmbedding, layer: nn.Linear):
        super().__init__(source.layout, source.table, joined=source.joined)
        sizes = source.layout.sizes[: source.layout.num_categorical]
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
        self.lookups = lookups_of(self.joined, len(sizes))
        firsts = list(accumulate(sizes_of(sizes, self.lookups), initial=0))[:-1]
        self.register_buffer("weight", layer.weight.detach())
        self.register_buffer("bias", bias)
        self.register_buffer("ones", torch.ones(1, len(self.lookups)), persistent=False)
        self.register_buffer("places", places(sizes, self.lookups), persistent=False)
        self.register_buffer("firsts", torch.tensor(firsts, dtype=torch.float32), persistent=False)

    def look_up(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """W x + b [N, 1, hidden] of `ids` [N, K]."""
        rows = gather_rows(self.folded_rows(), self._row_numbers(ids, offsets))
        # A product with ones: ONNX Runtime's sums over an axis take several times as long.
        total = self.ones @ rows.reshape(len(self.lookups), -1)
        return total.reshape(-1, 1, self.weight.shape[0])

    def _row_numbers(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Rows [lookups, N] of `folded_rows`. Those of joined fields are products in floats, which run fast."""
        if not self.joined:
            return ids.t() + offsets.unsqueeze(1)
        return torch.addmm(self.firsts, ids.to(torch.float32), self.places).to(torch.int32).t()

    def folded_rows(self) -> Tensor:
        """The rows of all lookups, multiplied: [rows, hidden], the bias in those of the first."""
        parts = [self._rows_of(first, last) for first, last in self.lookups]
        return torch.cat([parts[0] + self.bias, *parts[1:]])

    def _rows_of(self, first: int, last: int) -> Tensor:
        """The rows of one lookup: for fields of n and m ids, row i * m + j is the sum of row i and row j."""
        rows = self._field_rows(first)
        for field in range(first + 1, last):
            rows = (rows.unsqueeze(1) + self._field_rows(field).unsqueeze(0)).reshape(-1, self.weight.shape[0])
        return rows

    def _field_rows(self, field: int) -> Tensor:
        """W_f v of every row v of a field: [ids, hidden]."""
        start, dim = self.layout.starts[field], self.table.dim
        vectors: Tensor = self.table(every_row(start, start + self.layout.sizes[field]), (field,)).reshape(-1, dim)
        return vectors @ self.weight[:, field * dim : (field + 1) * dim].t()

    def pack(self) -> FoldedEmbedding:
        return self


def folded_bytes(embedding: FusedEmbedding, hidden: int) -> int:
    """Bytes in memory of the rows of `embedding` multiplied to `hidden` numbers each."""
    columns = embedding.layout.num_categorical
    return 4 * hidden * sum(sizes_of(embedding.layout.sizes[:columns], lookups_of(embedding.joined, columns)))


def fold_lookups(model: nn.Module) -> None:
    """Fold the marked first layers of a packed model, in place."""
    for module in list(model.modules()):
        if isinstance(module, InputLinear) and module.folded and isinstance(module.lookups, nn.Linear):
            embedding = model.embedding
            assert isinstance(embedding, FusedEmbedding)
            model.embedding = FoldedEmbedding(embedding, module.lookups)
            module.lookups = nn.Identity()
