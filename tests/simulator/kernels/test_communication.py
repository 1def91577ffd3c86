"""Collectives: what goes over the link, which protocol takes it there, and what a table of them may say."""

import dataclasses
import itertools
import math

import pandas as pd
import places
import pytest
from streams import A100, H100, cold_s

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_parameters
from simtti.hw_configs.hosts import load_host
from simtti.simulator.engine.host import issue_s
from simtti.simulator.kernels.communication import AllToAll, all_to_all
from simtti.simulator.kernels.family import Target
from simtti.simulator.lowering.registry import LOWERINGS, kernels_of
from simtti.simulator.policy import Policy
from simtti.simulator.predict import predict_rows
from simtti.validation.fit.families import in_training
from simtti.validation.judge.prediction import times_us
from simtti.validation.measurements import sources
from simtti.workloads.parallel.operands import ALL_TO_ALL, SEND_RECEIVE
from simtti.workloads.trace import Operator, TensorUse

L40S = load("l40s")
OPS = ("all_gather", "all_to_all", "reduce_scatter", "all_reduce")
ROW = {"op": "all_to_all", "dtype": "bf16", "numel": 1 << 24, "gpus": 4}


def time_s(op, numel, gpus, hardware, dtype="bf16"):
    return cold_s(kernels_of({"op": op, "dtype": dtype, "numel": numel, "gpus": gpus}, hardware), hardware)


def test_each_keeps_its_own_part():
    (kernel,) = all_to_all(AllToAll(1e6, 4), H100)
    assert kernel.link_bytes == 0.75e6
    assert kernel.unique_bytes == 2e6


@pytest.mark.parametrize(("op", "passes"), [("all_gather", 1), ("reduce_scatter", 1), ("all_reduce", 2)])
@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_a_ring_passes_all_but_ones_own_part_from_gpu_to_gpu(op, passes, gpus):
    (kernel,) = kernels_of({**ROW, "op": op, "gpus": gpus}, H100)
    assert kernel.link_bytes == pytest.approx(passes * 2 * (1 << 24) * (gpus - 1) / gpus)


@pytest.mark.parametrize("hardware", [H100, A100, L40S], ids=lambda hardware: hardware.name)
@pytest.mark.parametrize("op", OPS)
def test_time_grows_with_bytes_and_never_beats_the_wire(op, hardware):
    for gpus in (2, 4, 8):
        times = [time_s(op, 1 << power, gpus, hardware) for power in range(8, 30)]
        assert all(slower >= faster for faster, slower in itertools.pairwise(times))
        (kernel,) = kernels_of({**ROW, "op": op, "gpus": gpus, "numel": 1 << 29}, hardware)
        assert kernel.wire_bytes > kernel.link_bytes
        assert times[-1] > kernel.link_bytes / 2 / hardware.link_bytes_per_s


def test_protocols_change_with_size_from_latency_to_bandwidth():
    names = [
        kernels_of({**ROW, "op": "all_reduce", "gpus": 8, "numel": 1 << power}, H100)[0].name.rpartition("_")[
            2
        ]
        for power in range(6, 30)
    ]
    assert list(dict.fromkeys(names)) == ["LL", "LL128", "SIMPLE"]


def test_small_messages_pay_steps_and_large_ones_bytes():
    steps = [time_s("all_gather", 64, gpus, H100) for gpus in (2, 4, 8)]
    hop_s = H100.collectives.ll_hop_s
    assert steps[2] - steps[1] == pytest.approx(4 * hop_s, rel=0.2)
    large = [time_s("all_reduce", 1 << 30, gpus, H100) for gpus in (2, 8)]
    assert large[1] / large[0] < 2 * 7 / 8 * 1.2


def test_gpus_behind_one_host_share_it_and_those_on_a_switch_do_not():
    for hardware, least, most in ((L40S, 8.0, 40.0), (H100, 1.0, 2.0)):
        ratio = time_s("all_gather", 1 << 26, 8, hardware) / time_s("all_gather", 1 << 26, 2, hardware)
        assert least < ratio < most
    assert L40S.interconnect == "pcie"
    direct = load("v100-sxm")
    assert direct.interconnect == "nvlink"
    assert direct.collective_costs == direct.collectives_direct


@pytest.mark.parametrize(("hardware", "exponent"), [(L40S, L40S.collectives_host.contention), (H100, 0.0)])
def test_groups_that_exchange_at_once_share_the_host_as_well(hardware, exponent):
    def exchanges_s(gpus):
        (kernel,) = all_to_all(AllToAll(1 << 30, 2, gpus=gpus), hardware)
        return kernel.link_bytes / (hardware.link_bytes_per_s * kernel.link_efficiency)

    assert exchanges_s(8) / exchanges_s(2) == pytest.approx(4**exponent)


def test_without_peer_to_peer_a_device_exchanges_through_the_hosts_memory():
    staged = H100.replace(interconnect="host")
    assert staged.link_bytes_per_s == H100.host_link_bytes_per_s
    assert time_s("all_to_all", 1 << 26, 2, staged) > 5 * time_s("all_to_all", 1 << 26, 2, H100)
    # More GPUs get less each, but not as much less as through one PCI Express switch of a virtual machine.
    assert 1 < time_s("all_to_all", 1 << 26, 4, staged) / time_s("all_to_all", 1 << 26, 2, staged) < 4
    assert H100.replace(interconnect="host", link_bytes_per_s=3e10).link_bytes_per_s == 3e10


def test_a_faster_link_is_faster_by_its_bytes_only():
    twice = dataclasses.replace(H100, link_bytes_per_s=2 * H100.link_bytes_per_s)
    assert time_s("all_reduce", 64, 8, twice) == pytest.approx(time_s("all_reduce", 64, 8, H100), rel=0.01)
    assert time_s("all_reduce", 1 << 30, 8, twice) == pytest.approx(
        time_s("all_reduce", 1 << 30, 8, H100) / 2, rel=0.05
    )


def test_rows_have_times_in_any_type_by_either_name():
    rows = [{**ROW, "op": op, "dtype": dtype} for op in (*OPS, "alltoall") for dtype in ("bf16", "int8")]
    found = predict_rows(rows, H100)
    assert [one.error for one in found] == [""] * len(rows)
    times = [one.time_us for one in found]
    assert times[2:4] == times[8:10]
    assert all(half > byte for half, byte in zip(times[::2], times[1::2], strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpus": 1}, "column 'gpus' is 1; it must be a whole number of at least 2"),
        ({"gpus": None}, "column 'gpus' is empty or missing; all_to_all needs it"),
        ({"numel": None}, "column 'numel' is empty or missing"),
        ({"dtype": "fp12"}, "column 'dtype' is 'fp12'; it must be one of .*int8"),
        ({"dtype": None}, "column 'dtype' is empty or missing"),
    ],
)
def test_what_is_no_row_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        kernels_of({**ROW, **change}, H100)
    with pytest.raises(InputError, match="'int8'; it must be one of"):
        kernels_of({"op": "elementwise", "dtype": "int8", "numel": 8, "inputs": 1}, H100)


def test_a_device_without_a_link_has_none():
    with pytest.raises(InputError, match="rtx-4090 has no link between GPUs"):
        kernels_of(ROW, load("rtx-4090"))
    ((time_us, _, _, error),) = predict_rows([ROW], load("rtx-4090"))
    assert math.isnan(time_us)
    assert "no link" in error


def exchange(op, tensors=1):
    uses = [TensorUse(at, (1 << 20,), (1,), "bf16", 1 << 21, "activation") for at in range(2 * tensors)]
    return Operator("denoising", 0, 0, "", op, "Communication", tuple(uses[:tensors]), tuple(uses[tensors:]),
                    {"ranks": 4}, False)  # fmt: skip


def test_an_eager_run_adds_to_an_exchange_by_its_bytes_and_a_graph_does_not():
    operator = exchange(ALL_TO_ALL)
    eager, graph, alone = (
        *(LOWERINGS[ALL_TO_ALL](operator, Target(H100, Policy(launch=launch)))[0] for launch in ("eager", "graph")),
        all_to_all(AllToAll(1 << 21, 4), H100)[0],
    )  # fmt: skip
    assert graph == alone
    late_s = H100.collectives.eager_s_per_byte * alone.link_bytes
    assert eager.latency_s == pytest.approx(alone.latency_s + late_s)
    assert late_s > 0


def test_the_host_pays_for_each_send_and_receive():
    host = load_host("default")
    one, four = issue_s(host, [exchange(ALL_TO_ALL)], {}), issue_s(host, [exchange(SEND_RECEIVE, 2)], {})
    assert four[0] - one[0] == pytest.approx(3 * host.collective_s)


@pytest.mark.skipif(
    not (places.MEASURED / "nccl.parquet").exists(), reason="no measurements beside the repository"
)
def test_rows_held_out_from_the_fit_are_near(tmp_path):
    (tmp_path / "nccl.parquet").write_bytes((places.MEASURED / "nccl.parquet").read_bytes())
    table = sources.import_measurements("folder", tmp_path).table
    held_out = table[~in_training(table)]
    errors = {}
    for name, rows in held_out.groupby("hw"):
        times = pd.Series(times_us(rows.to_dict("records"), load(str(name))), rows.index)
        errors[name] = (times / rows.time_us - 1).abs().mean()
    assert len(errors) == 5
    assert max(error for name, error in errors.items() if name != "l40s") < 0.10
    assert errors["l40s"] < 0.14


@pytest.mark.skipif(
    not (places.MEASURED / "nccl.parquet").exists(), reason="no measurements beside the repository"
)
def test_another_devices_figures_carry_to_one_that_nobody_measured(tmp_path):
    """H200 with what H100 states, as its file would have without measurements of its own."""
    nccl = pd.read_parquet(places.MEASURED / "nccl.parquet").query("hw == 'h200-sxm'")
    rows = nccl.assign(numel=nccl.message_size, dtype=nccl.dtype.replace("half", "fp16")).to_dict("records")
    h200 = with_parameters(
        load("h200-sxm"), {f"collectives.{name}": value for name, value in H100.collectives._asdict().items()}
    )
    times = pd.Series(times_us(rows, h200), nccl.index)
    assert (times / nccl.time_us - 1).abs().mean() < 0.12
