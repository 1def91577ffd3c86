"""Which half of the shapes a fit may see."""

import pandas as pd

from simtti.validation.fit.families import in_training


def test_the_release_that_a_shape_was_timed_with_leaves_it_in_its_half():
    """What a fit could see stays known when more is said of a row."""
    rows = pd.DataFrame({"op": "gemm", "dtype": "fp16", "m": range(1, 200), "n": 320, "k": 320})
    halves = in_training(rows)
    assert 60 < halves.sum() < 140
    assert in_training(rows.assign(pytorch="2.11", hw="h100-sxm")).equals(halves)
