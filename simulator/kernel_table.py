"""A run's kernels as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simtti.simulator.closed_form import RESOURCES

if TYPE_CHECKING:
    import pandas as pd

    from simtti.simulator.result import Result  # circle: a type only


def kernel_table(result: Result) -> pd.DataFrame:
    """One row a simulated kernel of `result`; see Result.intervals."""
    import pandas as pd

    rows = []
    for interval, times in result.weighted_kernels():
        operator, kernel = result.rows[interval.operator][0], interval.kernel
        rows.append(
            {
                "phase": operator.phase,
                "step": operator.step,
                "repetition": interval.repetition,
                "repeats": times,
                "position": operator.position,
                "module": operator.module,
                "op": operator.op,
                "category": operator.category,
                "kernel": kernel.name,
                "family": kernel.family,
                "grid": kernel.grid,
                "start_s": interval.start_s,
                "duration_s": interval.duration_s,
                "flops": kernel.flops,
                "hbm_bytes": interval.hbm_bytes,
                "l2_bytes": kernel.l2_bytes * kernel.grid,
                "stream": interval.stream,
                **{f"{name}_busy_s": seconds for name, seconds in zip(RESOURCES, interval.busy, strict=True)},
            }
        )
    return pd.DataFrame(rows)
