"""In how many parts flash-attention walks the keys, by its own rules."""

from __future__ import annotations

import functools
import math

MOST_REMEMBERED = 4096  # exact: answers kept; the results are the same with any other number
FULL_SHARE = 0.8  # exact: num_splits_heuristic: CTAs that fill this share of the slots are not split
BEST_SHARE = 0.85  # exact: the same: of the fullest last wave, what the fewest splits must attain
MOST_SPLITS = 128  # exact: the same
WHOLE_KEY_BLOCKS = 4  # exact: hopper/heuristics.h: up to so many blocks of keys are not split
SPARE_SHARE = 1.1  # exact: prepare_varlen_num_blocks: a tenth to spare


@functools.lru_cache(MOST_REMEMBERED)
def key_splits(ctas: int, slots: int, key_blocks: int) -> int:
    """In how many parts flash-attention walks the keys (num_splits_heuristic): the fewest that fill the last wave to 85 %
    of the best, one where the CTAs fill four fifths of the slots."""
    if ctas >= FULL_SHARE * slots:
        return 1
    filled = {}
    for splits in range(1, min(MOST_SPLITS, slots, key_blocks) + 1):
        if splits == 1 or -(-key_blocks // splits) != -(-key_blocks // (splits - 1)):
            waves = ctas * splits / slots
            filled[splits] = waves / -(-ctas * splits // slots)
    best = max(filled.values())
    return next(splits for splits, share in filled.items() if share >= BEST_SHARE * best)


def dynamic_splits(batch: int, heads: int, q_blocks: int, key_blocks: int, sms: int) -> tuple[int, bool]:
    """In how many parts flash-attention 3 walks the keys, and whether its combining kernel is launched.

    The host takes an upper bound by the rule above, as if the batch were one sequence and not for up to four blocks, and
    launches the combining kernel where that exceeds one. A kernel on the device then divides the blocks of all sequences
    among the SMs with a tenth to spare (`prepare_varlen_num_blocks`).
    """
    most = key_splits(heads * q_blocks, sms, key_blocks) if key_blocks > WHOLE_KEY_BLOCKS else 1
    blocks_an_sm = math.ceil(SPARE_SHARE * batch * heads * q_blocks * key_blocks / sms)
    splits = max(min(-(-key_blocks // blocks_an_sm), most), 1)
    return -(-key_blocks // -(-key_blocks // splits)), most > 1
