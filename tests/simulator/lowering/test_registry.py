"""The registry: what is added from outside the package is known everywhere, and what is removed leaves no trace.

The toy family is docs/extend.md's recipe: one file with its record, and its YAML group.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import simtti
from simtti.errors import InputError
from simtti.hw_configs import families, parameters, schema
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import parameter, with_parameters
from simtti.simulator.kernel import Access, Kernel
from simtti.simulator.kernels.elementwise import lower as lower_elementwise
from simtti.simulator.kernels.family import Family, Work, lowered_by, needed, reads_of, writes_of
from simtti.simulator.lowering import registry
from simtti.simulator.lowering.registry import kernels_of
from simtti.simulator.predict import operator_time_s
from simtti.validation.fit.calibrate import calibrate, write
from simtti.validation.judge.kernels import evaluate
from simtti.validation.measurements.read import read_measurements
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace

# ---- kernels/toy.py: the record and its model

ITEM_BYTES = 2
THREADS = 256


class ToyStyle(NamedTuple):
    """What the threads of toy::scale spend."""

    element_slots: float
    latency_s: float


@dataclass(frozen=True)
class Scale:
    """numel elements of 2 bytes, each multiplied by a number."""

    numel: int
    source: int = 0
    target: int = 1


def scale(problem, hardware):
    nbytes = float(problem.numel * ITEM_BYTES)
    return Kernel(
        name="toy_scale",
        family="toy",
        grid=-(-problem.numel // THREADS),
        threads=THREADS,
        issue_slots=THREADS * hardware.toy.element_slots,
        l2_bytes=2 * ITEM_BYTES * THREADS,
        latency_s=hardware.toy.latency_s,
        reads=(Access(problem.source, nbytes),),
        writes=(Access(problem.target, nbytes),),
    )


def lower(operator, target):
    assert reads_of(operator)[0].nbytes == writes_of(operator)[0].nbytes
    return [scale(Scale(operator.outputs[0].numel), target.hardware)]


def toy_family(values):
    return Family(
        op="toy_scale",
        columns=needed("numel"),
        kernels=lambda cells, hardware: [scale(Scale(cells.whole("numel")), hardware)],
        work=lambda cells: Work(0.0, 2.0 * cells.whole("numel")),
        aten={"toy::scale": lower},
        groups={"toy": ToyStyle},
        values=str(values),
    )


# ---- its YAML

YAML = """
fields:
  ToyStyle:
    element_slots: {bounds: [1, 5000], meaning: "issue slots of an element"}
    latency_s: {bounds: [0, 1.0e-05], meaning: "a CTA's chain"}
calibration:
  toy.element_slots: {value: 400.0, status: estimated, source: "a test"}
  toy.latency_s: {value: 1.0e-06, status: estimated, source: "a test"}
"""


def state():
    """All that a family adds to."""
    return copy.deepcopy(
        {
            "families": list(registry.FAMILIES),
            "lowerings": registry.LOWERINGS,
            "groups": parameters.GROUPS,
            "files": families.FILES,
            "calibration": schema.calibration(),
            "device": load("h100-sxm").to_dict(),
        }
    )


@pytest.fixture
def toy(tmp_path):
    values = tmp_path / "toy.yaml"
    values.write_text(YAML)
    family, before = toy_family(values), state()
    registry.add(family)
    yield family
    registry.remove(family)
    assert state() == before


def row(numel):
    return {"op": "toy_scale", "dtype": "fp16", "numel": numel}


def measurements(hardware, slots):
    """Rows as a device would give them whose elements cost `slots`."""
    true = with_parameters(hardware, {"toy.element_slots": slots})
    rows = [row(int(numel)) for numel in np.geomspace(1e5, 1e8, 60)]
    times = [operator_time_s(kernels_of(each, true), true) * 1e6 for each in rows]
    table = pd.DataFrame(rows).assign(time_us=times)
    return table.assign(hw=hardware.name, source="a test", what_is_timed="back-to-back")


def test_a_row_of_a_table_is_predicted(toy):
    table = simtti.predict(
        pd.DataFrame([row(1 << 20), row(1 << 24), {"op": "toy_scale", "dtype": "fp16"}]), "h100-sxm"
    )
    assert table.error.tolist() == ["", "", "column 'numel' is empty or missing; toy_scale needs it"]
    assert table.time_us[0] < table.time_us[1]


def test_an_operator_of_a_trace_is_run(toy):
    use = [TensorUse(tensor, (4096, 4096), (4096, 1), "fp16", 1 << 25, "activation") for tensor in (0, 1)]
    operator = Operator("denoising", 0, 0, "", "toy::scale", "Elementwise", (use[0],), (use[1],), {}, False)
    trace = Trace("toy", {}, (Phase("denoising", (Step(3, (operator,)),)),))
    result = simtti.run(trace, "h100-sxm", launch="graph")
    assert not result.unlowered
    assert {item.kernel.name for item in result.kernels} == {"toy_scale"}
    (kernel,) = kernels_of(row(4096 * 4096), load("h100-sxm"))
    assert result.latency_s == pytest.approx(3 * operator_time_s([kernel], load("h100-sxm")), rel=0.1)


def test_its_parameters_are_fitted_and_written(toy, tmp_path):
    device = load("h100-sxm")
    assert parameter(device, "toy.element_slots") == 400
    found = calibrate(device, measurements(device, 555.0), workers=1)
    (fit,) = found.fits
    assert fit.family.name == "toy_scale"
    assert parameter(found.hardware, "toy.element_slots") == pytest.approx(555, rel=0.01)
    assert fit.test.mape < 0.01 < fit.before.mape
    write(found, tmp_path / "mine.yaml")
    assert load(str(tmp_path / "mine.yaml")).toy == found.hardware.toy


def test_its_measurements_are_read_and_judged(toy, tmp_path):
    path = tmp_path / "measured.csv"
    measurements(load("h100-sxm"), 400.0).to_csv(path, index=False)
    found = evaluate("h100-sxm", read_measurements(path), workers=1)
    assert len(found.scored) == 60
    assert (found.table.error == "").all()
    assert set(found.table.family) == {"toy_scale"}
    assert found.table.ratio.to_numpy() == pytest.approx(1)
    assert (found.table.roofline_us < found.table.predicted_us).all()


def test_what_was_removed_is_unknown(tmp_path):
    values = tmp_path / "toy.yaml"
    values.write_text(YAML)
    family = toy_family(values)
    registry.add(family)
    registry.remove(family)
    with pytest.raises(InputError, match="op 'toy_scale'"):
        kernels_of(row(8), load("h100-sxm"))
    assert not hasattr(load("h100-sxm"), "toy")


def test_a_family_that_shares_a_lowering_takes_only_its_own_away(toy):
    shares = Family("shares", (), toy.kernels, toy.work, aten=lowered_by(lower_elementwise, "toy::other"))
    registry.add(shares)
    registry.remove(shares)
    assert "toy::other" not in registry.LOWERINGS
    assert registry.LOWERINGS["aten::add"] is lower_elementwise


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": "gemm"}, "there is a family 'gemm' already"),
        ({"aten": {"add": lower}}, "family 'other': 'aten::add' belongs to another family"),
        ({"groups": {"functions": ToyStyle}}, "family 'other': 'functions' belongs to another family"),
    ],
)
def test_what_another_family_has_is_refused(change, message):
    before = state()
    record = {"op": "other", "columns": (), "kernels": None, "work": None} | change
    with pytest.raises(InputError, match=message):
        registry.add(Family(**record))
    assert state() == before


def test_a_group_without_bounds_is_refused_and_can_be_removed(tmp_path):
    values = tmp_path / "toy.yaml"
    values.write_text(YAML.replace("latency_s: {bounds", "latency_us: {bounds"))
    family = toy_family(values)
    registry.add(family)
    try:
        with pytest.raises(InputError, match=r"no bounds of ToyStyle.latency_s"):
            load("h100-sxm")
    finally:
        registry.remove(family)
    assert load("h100-sxm").sm_count == 132
