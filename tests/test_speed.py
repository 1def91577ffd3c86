"""What costs time is done once, and nothing is loaded that a run does not need. Counts and ratios: no clock of a shared machine is
asked how fast anything is."""

import subprocess
import sys
import time

import numpy as np
import pytest

from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.simulator.by_host import latency_by_host
from simtti.simulator.closed_form import busy, lone_execution_s
from simtti.simulator.column import column, stands_in_column
from simtti.simulator.engine import power
from simtti.simulator.engine.simulation import simulate
from simtti.simulator.kernels import convolution, implicit_gemm, implicit_gemm_choice
from simtti.simulator.lowering.lower import alike
from simtti.simulator.lowering.registry import LOWERINGS
from simtti.simulator.predict import predict_rows
from simtti.workloads.record import workload_trace

H100 = load("h100-sxm")
# What a run on a shipped trace and a shipped device has no use for.
UNUSED = (
    "pandas", "scipy", "pydantic", "torch", "rich.progress", "numpy.ma", "simtti.commands.traces", "simtti.commands.measurements",
    "simtti.validation",
)  # fmt: skip


def calls_of(function):
    """What `function` returns, and how many calls of Python functions it takes: the same every time."""
    count = 0

    def tally(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(tally)
    try:
        found = function()
    finally:
        sys.setprofile(None)
    return found, count


def test_a_run_of_a_shipped_trace_loads_what_it_needs():
    code = (
        "import sys\nfrom simtti.cli import main\n"
        "try:\n    main(['run', 'stable-diffusion', '--hw', 'h100-sxm'])\n"
        f"finally:\n    print(*(name for name in {UNUSED!r} if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
    assert "Tensor cores busy" in done.stdout


@pytest.fixture(scope="module")
def trace():
    return workload_trace("stable-diffusion")


@pytest.fixture(scope="module")
def result(trace):
    return simulate(trace, H100, load_host("default"))


def launches_of(result):
    return sum(len(item.launches) for item in result.repetitions)


def test_what_is_told_of_a_run_is_asked_of_kinds_not_of_launches(trace):
    result, again = (simulate(trace, H100, load_host("default")) for _ in range(2))

    def told(result):
        return result.breakdown, result.interval, result.utilisation, result.kinds

    told(result)  # what is read once
    (_, _, _, kinds), calls = calls_of(lambda: told(again))
    assert sum(kinds.times) > 20 * len(kinds.seconds)
    assert calls < 3 * launches_of(again)


def test_other_hosts_ask_the_device_nothing_again(result):
    found, calls = calls_of(lambda: latency_by_host(result))
    assert len(found) > 2
    # L2 is gone through for each of them, the closed form is not.
    assert calls < 7 * launches_of(result) * (len(found) - 1)


def test_one_of_the_ways_of_a_convolution_is_built(trace, monkeypatch):
    built, possible = [], []
    for name in ("persistent_kernels", "mma_kernels"):
        made = getattr(implicit_gemm, name)
        monkeypatch.setattr(
            implicit_gemm_choice, name, lambda *given, made=made: built.append(given) or made(*given)
        )
    choose = implicit_gemm_choice.choose
    monkeypatch.setattr(
        convolution, "choose", lambda asked, hardware: possible.extend(asked) or choose(asked, hardware)
    )
    simulate(trace, H100.replace(sm_count=131), load_host("default"))
    assert sum(len(each.tiles) for each in possible) > 400
    assert len(built) == len(possible)


def test_a_device_of_other_speed_lowers_anew_only_what_reads_its_speed(trace, monkeypatch):
    host, lowered = load_host("default"), []
    for numbers in ({}, {"clock_hz": 1.5e9}):
        simulate(trace, H100.replace(**numbers), host)
    for name, lower in LOWERINGS.items():
        monkeypatch.setitem(
            LOWERINGS, name, lambda op, target, lower=lower: lowered.append(op.op) or lower(op, target)
        )
    found = simulate(trace, H100.replace(clock_hz=1.4e9), host)
    assert len({row.op for row, _ in found.rows}) > 15
    assert {name.removeprefix("aten::") for name in lowered} <= {
        "addmm", "mm", "bmm", "native_group_norm", "embedding", "index", "scaled_dot_product_attention",
    }  # fmt: skip


@pytest.mark.parametrize("l2_bytes", [5e7, 83456789.1234, 47123456.789])
def test_steps_that_repeat_are_passed_over_whatever_the_size_of_l2(trace, l2_bytes):
    """Sums of many bytes lose parts of one, differently each time: a search's devices have L2s of any size."""
    device = H100.replace(l2_capacity_bytes=l2_bytes)
    found = simulate(trace, device, load_host("default"), fidelity="closed")
    assert sum(each.times for each in found.outcome.repetitions) > 50
    assert len(found.outcome.repetitions) < 8


def test_kernels_side_by_side_take_a_fraction_of_one_after_another(result):
    launches = list({id(each): each for item in result.repetitions for each in item.launches}.values())
    launches = [each for each in launches if stands_in_column(each.kernel)]

    def together():
        all_of_them = column([each.kernel for each in launches], H100)
        moved = np.array([each.hbm_bytes for each in launches])
        alone_s = lone_execution_s(all_of_them, H100, moved)
        power.energy(all_of_them, moved, H100, alone_s=alone_s)
        busy(all_of_them, H100, moved)

    def one_by_one():
        for each in launches:
            alone_s = lone_execution_s(each.kernel, H100, each.hbm_bytes)
            power.energy(each.kernel, each.hbm_bytes, H100, alone_s=alone_s)
            busy(each.kernel, H100, each.hbm_bytes)

    def least_s(function):
        found = []
        for _ in range(5):
            began = time.process_time()
            function()
            found.append(time.process_time() - began)
        return min(found)

    assert len(launches) > 300
    assert 2 * least_s(together) < least_s(one_by_one)


def test_operators_that_are_alike_are_known_by_what_they_share(trace):
    step = max((step for phase in trace.phases for step in phase.steps), key=lambda step: len(step.operators))
    found, calls = calls_of(lambda: alike.__wrapped__(step.operators))
    assert calls < 3 * len(step.operators)
    assert len(found.members) < len(step.operators) / 5


def test_products_of_a_table_are_timed_in_columns():
    rows = [
        {"op": "gemm", "dtype": "bf16", "m": 2 + n, "n": 64 + n % 89 * 96, "k": 32 + n % 83 * 64}
        for n in range(1000)
    ]
    predict_rows(rows[:100], H100)  # what is found once for a device
    (one,), calls_alone = calls_of(lambda: predict_rows(rows[:1], H100))
    found, calls = calls_of(lambda: predict_rows(rows, H100))
    assert found[0] == one
    assert calls < 40 * len(rows) < calls_alone * len(rows) / 5
