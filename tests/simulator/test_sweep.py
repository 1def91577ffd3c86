"""A sweep's own work grows as its rows do."""

import time

import pandas as pd

from simtti.simulator import sweep

ROWS = 20_000


def test_the_bookkeeping_of_many_rows_is_a_small_part_of_their_simulation(tmp_path, monkeypatch):
    """A row's simulation takes 0.1 s and more; what is done beside it, a hundredth of that. An interrupted one reads as fast."""
    simulated = []

    def run_row(options, *more):
        simulated.append(options["steps"])
        return {
            "latency_s": 1.0 / options["steps"],
            "energy_j": 2.0,
            "peak_memory_bytes": 3,
            "host_bound_share": 0.5,
        }

    monkeypatch.setattr(sweep, "_run_row", run_row)
    rows = pd.DataFrame(
        {"workload": "sdxl", "hw": ["h100-sxm", "a100-sxm"] * (ROWS // 2), "steps": range(1, ROWS + 1)}
    )

    def progress(done, total):
        if done >= ROWS - 1:
            raise KeyboardInterrupt

    began = time.process_time()
    try:
        sweep.sweep(rows, tmp_path / "out.csv", workers=1, progress=progress)
    except KeyboardInterrupt:
        assert len(simulated) == ROWS - 1
    found = sweep.sweep(rows, tmp_path / "out.csv", workers=1)
    assert time.process_time() - began < ROWS * 1e-3
    assert sorted(simulated) == list(range(1, ROWS + 1))
    assert found.latency_s.tolist() == [1 / steps for steps in rows.steps]
