"""What attention is asked for: the sizes, the tensors, and which library's kernels."""

from __future__ import annotations

from dataclasses import dataclass

from simtti.dtypes import ITEM_BYTES
from simtti.simulator.kernel import Access
from simtti.simulator.kernels.family import Cells, Work
from simtti.simulator.kernels.layout import Operand

# Identities where a caller gives none: of queries, keys, values, the result, and the first of the intermediate results.
Q, K, V, OUT, WORKSPACE = -1, -2, -3, -4, -5  # exact: our own; negative ones are no tensors of a trace


@dataclass(frozen=True, slots=True)
class Attention:
    """`batch` x `heads` sequences of `q_len` queries over `kv_len` keys, rows of `head_dim` elements.

    causal: queries see the keys up to their own position, counted from the end. masked: a mask is added to the scores; mask: how it
    lies over (batch, heads, q_len, kv_len), where known. kernel: a
    library's name or 'baseline'; the device's default if None. kv_heads: heads of keys and values where fewer than of queries.
    q, k, v, out: tensor identities; workspace, and those below it, name intermediate results.
    """

    batch: int
    heads: int
    q_len: int
    kv_len: int
    head_dim: int
    causal: bool = False
    dtype: str = "fp16"
    kernel: str | None = None
    masked: bool = False
    mask: Operand | None = None
    kv_heads: int | None = None
    q: int = Q
    k: int = K
    v: int = V
    out: int = OUT
    workspace: int = WORKSPACE
    family: str = "attention"

    def __post_init__(self) -> None:
        sizes = (self.batch, self.heads, self.q_len, self.kv_len, self.head_dim)
        if min(sizes) < 1:
            given = ", ".join(map(str, sizes))
            raise ValueError(
                f"attention: batch, heads, q_len, kv_len and head_dim must be at least 1, not {given}"
            )

    @property
    def sequences(self) -> int:
        return self.batch * self.heads

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def reads(self) -> tuple[Access, Access, Access]:
        """Bytes of queries, keys and values."""
        row_bytes = self.head_dim * self.item_bytes
        keys = float(self.batch * (self.kv_heads or self.heads) * self.kv_len * row_bytes)
        return (
            Access(self.q, float(self.sequences * self.q_len * row_bytes)),
            Access(self.k, keys),
            Access(self.v, keys),
        )

    @property
    def writes(self) -> tuple[Access, ...]:
        """Bytes of the result."""
        return (Access(self.out, float(self.sequences * self.q_len * self.head_dim * self.item_bytes)),)

    @property
    def visible_share(self) -> float:
        """Share of the score matrix that a causal mask leaves; all of it without one."""
        if not self.causal:
            return 1.0
        if self.q_len <= self.kv_len:
            return (self.kv_len - self.q_len + (self.q_len + 1) / 2) / self.kv_len
        return (self.kv_len + 1) / 2 / self.q_len


def work(cells: Cells) -> Work:
    """FLOPs and bytes of a row of a table: two products of each head, and queries, keys, values and result."""
    heads = cells.whole("batch") * cells.whole("heads")
    queries, keys, width = (cells.whole(name) for name in ("q_len", "kv_len", "head_dim"))
    visible = 0.5 if cells.flag("causal") else 1.0
    products = 2 * 2.0 * heads * queries * keys * width
    return Work(products * visible, 2.0 * heads * width * (queries + keys))
