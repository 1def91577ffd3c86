"""How far off a run is when its model had no say in the device: the energy parameters, which runs set, fitted again
without any run of that model, and the runs of that model simulated on the device that comes out.

The fit starts where the device's file stands, which may have been fitted to the model's own runs, so nothing pulls it back
there: the runs of the other models alone decide. Latencies change as well where the power limit holds the clock back.
Nothing else of a device is fitted to whole runs, so nothing else has to be left out; the host's constant, set by hand on
some of them, stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simtti.hw_configs.devices import fingerprint, load, names
from simtti.hw_configs.hardware import Hardware, with_parameters
from simtti.jobs import Pool
from simtti.journal import Journal, resumed
from simtti.simulator.sweep import Keys
from simtti.validation.fit.energy import EnergyModel, simulate_one
from simtti.validation.fit.families import FitFamily, families, family_of
from simtti.validation.fit.solve import solve
from simtti.validation.measurements.table import options

if TYPE_CHECKING:
    import pandas as pd

FAMILY = "energy"
LEAST_RUNS = 10  # of other models: twice as many as there are parameters to fit


def left_out(
    rows: pd.DataFrame,
    journal: Journal | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> pd.DataFrame:
    """Latency and energy of each run on its device with the energy parameters fitted to the other models' runs alone.

    Args:
        rows: whole inferences with energy_j (see validation.measurements.table), or with `trace` in place of a shape.
        journal: where what is simulated is kept, and taken from if it is there.

    Returns:
        left_out_s and left_out_j, a row a run; NaN where the run takes no part in that fit (several GPUs, no energy, a
        device that simtti has no file for), or fewer than LEAST_RUNS of other models do.
    """
    import pandas as pd

    (family,) = (replace(each, pull=0.0) for each in families() if each.name == FAMILY)
    fitted = (family_of(rows, (family,)) == FAMILY) & rows.energy_j.notna() & rows.hw.isin(names())
    asked: dict[Any, tuple[dict[str, Any], Hardware]] = {}
    for hw, part in rows[fitted].groupby("hw"):
        asked |= _without_each(str(hw), part, family, journal, workers, progress)
    result = pd.DataFrame(float("nan"), index=rows.index, columns=["left_out_s", "left_out_j"])
    key_of, places = Keys(), defaultdict[str, list[Any]](list)
    for at, (options_, hardware) in asked.items():
        places[f"{key_of(options_)} on {fingerprint(hardware)}"].append(at)
    jobs = {key: asked[same[0]] for key, same in places.items()}
    with Pool(workers) as pool:
        for done, (key, figures) in enumerate(resumed(pool, _simulate, jobs, journal), 1):
            for at in places[key]:
                result.loc[at] = figures
            progress("each model left out", done, len(jobs))
    return result


def _without_each(
    hw: str,
    rows: pd.DataFrame,
    family: FitFamily,
    journal: Journal | None,
    workers: int | None,
    progress: Callable[[str, int, int], None],
) -> dict[Any, tuple[dict[str, Any], Hardware]]:
    """Of each run of a device, by its label in `rows`: its options, and the device fitted to the other models' runs."""
    hardware = load(hw)
    models = sorted(set(rows.workload))
    others = {name: (rows.workload != name).to_numpy() for name in models}
    enough = [name for name in models if others[name].sum() >= LEAST_RUNS]
    if not enough:
        return {}

    def simulated(done: int, total: int) -> None:
        progress(f"{hw} at two clocks", done, total)

    model = EnergyModel(rows, hardware, workers, simulated, journal)
    jobs = {}
    for name in enough:
        found = solve(model.only(others[name]), hardware, family, family.parameters)
        without = with_parameters(hardware, found.values)
        for at, row in rows[~others[name]].iterrows():
            jobs[at] = (options(row.to_dict()), without)
    return jobs


def _simulate(asked: dict[str, Any], hardware: Hardware) -> tuple[float, float]:
    found = simulate_one(asked, hardware)
    return found.latency_s, found.energy_j
