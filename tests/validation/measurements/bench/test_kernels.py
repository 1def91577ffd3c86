"""Which kernels of a profile belong to a call."""

import json

from simtti.validation.measurements.bench import kernels


def _event(cat, name, ts, dur, **arguments):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "args": arguments}


def test_kernels_are_those_launched_within_a_label():
    events = [
        _event("kernel", "flush", 900, 80.0, correlation=1),
        _event("cuda_runtime", "cudaLaunchKernel", 5, 2, correlation=1),
    ]
    for launch, (label, at) in enumerate(
        (("simtti 0 warm", 100), ("simtti 0 warm", 200), ("simtti 0 cold", 300))
    ):
        events.append(_event("user_annotation", label, at, 50))
        events.append(_event("gpu_user_annotation", label, at + 700, 50))
        for place, name in enumerate(("transpose", "product")):
            number = 10 * launch + place + 10
            grid = [4, place + 1, 1]
            events.append(
                _event("cuda_runtime", "cudaLaunchKernel", at + 10 * place + 1, 4, correlation=number)
            )
            events.append(_event("kernel", name, 1000 + number, 3.0 + place + launch, correlation=number, grid=grid,
                                 block=[128, 1, 1], **{"registers per thread": 32, "shared memory": 1024}))  # fmt: skip
    found = kernels.kernels_by_label({"traceEvents": list(reversed(events))})
    assert [[kernel["name"] for kernel in launch] for launch in found["simtti 0 warm"]] == [
        ["transpose", "product"]
    ] * 2
    columns = kernels.kernel_columns(found["simtti 0 warm"], found["simtti 0 cold"])
    assert columns["kernel_count"] == 2
    assert columns["warm_kernel_us"] == 3.5 + 4.5
    assert columns["cold_kernel_us"] == 5.0 + 6.0
    product = json.loads(columns["kernels"])[1]
    assert (product["name"], product["grid"], product["registers"], product["shared_memory_bytes"]) == (
        "product",
        [4, 2, 1],
        32,
        1024,
    )
    assert kernels.kernel_columns([], []) == {}
