"""What attention is asked for: the sizes, the tensors, and which library's kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simtti.dtypes import ITEM_BYTES
from simtti.simulator.kernel import Access
from simtti.simulator.kernels.attention_visible import WHOLE, window_keys, window_share
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
    window: keys to the left and to the right of a query's position, counted from the end, that it sees; -1 for all. block_share: of
    the blocks of scores that a sparse mask leaves. packed: where sequences one after another are not all alike, the batch is
    one, q_len and kv_len are of all, and each entry says how many (the third number) have so many queries and keys. quantized:
    queries, keys and values come in eight bits, as a library of eight-bit attention has made them.
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
    window: tuple[int, int] = WHOLE
    block_share: float = 1.0
    packed: tuple[tuple[int, int, int], ...] = ()
    quantized: bool = False
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
        if not 0 < self.block_share <= 1 or min(self.window) < -1:
            raise ValueError(
                f"attention: a share of blocks of {self.block_share}, a window of {self.window}; a share is above 0 and up to 1, "
                "a window of keys to each side, -1 for all"
            )

    @property
    def sequences(self) -> int:
        """Of queries: of each head in the batch."""
        return self.batch * self.heads

    @property
    def sliding(self) -> tuple[int, int] | None:
        """The window, with a causal mask in it; None where it leaves all keys, or what a causal mask leaves."""
        left, right = self.window
        covers = left < 0 or left >= max(self.q_len, self.kv_len)
        if covers and (self.causal or right < 0 or right >= max(self.q_len, self.kv_len)):
            return None
        return left, 0 if self.causal else right

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def reads(self) -> tuple[Access, Access, Access]:
        """Bytes of queries, keys and values."""
        row_bytes = self.head_dim * self.item_bytes
        seen = self.kv_len if self.sliding is None else window_keys(self.q_len, self.kv_len, self.sliding)
        keys = float(self.batch * (self.kv_heads or self.heads) * seen * row_bytes)
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
    def flops(self) -> float:
        """Of both products, for the pairs of a query and a key that it sees."""
        return sum(
            2 * 2.0 * each.sequences * each.q_len * each.kv_len * each.head_dim * each.visible_share
            for each in self.alike
        )

    @property
    def alike(self) -> tuple[Attention, ...]:
        """A problem for each kind of sequence, where they are packed; itself where they are all alike."""
        return tuple(
            replace(self, packed=(), batch=count, q_len=queries, kv_len=keys)
            for queries, keys, count in self.packed
        ) or (self,)

    @property
    def visible_share(self) -> float:
        """Share of the score matrix that causal, sliding and sparse masks leave; all of it without one."""
        if self.sliding is not None:
            return window_share(self.q_len, self.kv_len, self.sliding) * self.block_share
        if not self.causal:
            return self.block_share
        if self.q_len <= self.kv_len:
            return (self.kv_len - self.q_len + (self.q_len + 1) / 2) / self.kv_len * self.block_share
        return (self.kv_len + 1) / 2 / self.q_len * self.block_share


def work(cells: Cells) -> Work:
    """FLOPs and bytes of a row of a table: two products of each head, and queries, keys, values and result."""
    heads = cells.whole("batch") * cells.whole("heads")
    queries, keys, width = (cells.whole(name) for name in ("q_len", "kv_len", "head_dim"))
    visible = 0.5 if cells.flag("causal") else 1.0
    products = 2 * 2.0 * heads * queries * keys * width
    return Work(products * visible, 2.0 * heads * width * (queries + keys))
