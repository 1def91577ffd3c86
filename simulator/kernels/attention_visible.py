"""Which keys the queries of attention see: under a causal mask, in a window that slides along, in the blocks of a sparse mask.

Kernels skip whole blocks of keys that no query of a block of theirs sees (flash-attention's n_block_min and n_block_max), so that what
they compute is counted in blocks and what is useful in pairs.
"""

from __future__ import annotations

import functools
import itertools

SUMMED_BLOCKS = 64  # exact: our own: up to so many blocks of queries are summed one by one
UNLIMITED = -1  # exact: flash-attention's window_size
WHOLE = (UNLIMITED, UNLIMITED)  # exact: no window
MOST_REMEMBERED = 1024  # exact: answers kept; the results are the same with any other number


def causal_blocks(q_len: int, kv_len: int, queries: int, keys: int) -> float:
    """Blocks of `keys` keys that a block of `queries` queries walks over under a causal mask, on average."""
    q_blocks = -(-q_len // queries)
    if q_blocks > SUMMED_BLOCKS:  # the sum's closed form without the rounding at the ends
        first, last = kv_len - q_len + queries, kv_len
        return max((max(first, 0) + last) / 2 / keys + 0.5, 1.0)
    total = 0
    for index in range(q_blocks):
        seen = min(kv_len - q_len + (index + 1) * queries, kv_len)
        total += max(-(-seen // keys), 1)
    return total / q_blocks


@functools.lru_cache(MOST_REMEMBERED)
def window_blocks(q_len: int, kv_len: int, queries: int, keys: int, window: tuple[int, int]) -> float:
    """The same in a window of so many keys to the left and to the right of a query's own position, counted from the end."""
    left, right = window
    shift, whole, total = kv_len - q_len, -(-kv_len // keys), 0
    starts = range(0, q_len, queries)
    for start in starts:
        end = min(start + queries, q_len)
        last = kv_len if right < 0 else min(max(end + shift + right, 0), kv_len)
        first = 0 if left < 0 else max(start + shift - left, 0)
        total += max(min(-(-last // keys), whole) - first // keys, 1)
    return total / len(starts)


@functools.lru_cache(MOST_REMEMBERED)
def window_share(q_len: int, kv_len: int, window: tuple[int, int]) -> float:
    """Of all pairs of a query and a key, those in the window."""
    left, right = window
    shift, pairs = kv_len - q_len, 0
    # Between corners the number of keys that a query sees is a straight line.
    corners = {0, q_len}
    for offset in (left - shift, -shift - right - 1, kv_len - shift - right - 1, kv_len - shift + left):
        corners |= {min(max(offset + near, 0), q_len) for near in (0, 1)}
    ordered = sorted(corners)
    for start, end in itertools.pairwise(ordered):
        if end > start:
            first, last = (_seen(row + shift, kv_len, left, right) for row in (start, end - 1))
            pairs += (first + last) * (end - start)
    return pairs / 2 / (q_len * kv_len)


def _seen(position: int, kv_len: int, left: int, right: int) -> int:
    last = kv_len if right < 0 else min(position + right + 1, kv_len)
    first = 0 if left < 0 else max(position - left, 0)
    return max(last - first, 0)


def window_keys(q_len: int, kv_len: int, window: tuple[int, int]) -> int:
    """Keys that any query sees."""
    left, right = window
    shift = kv_len - q_len
    first = 0 if left < 0 else min(max(shift - left, 0), kv_len - 1)
    last = kv_len if right < 0 else min(max(q_len + shift + right, 1), kv_len)
    return max(last - first, 1)
