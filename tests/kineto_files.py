"""Kineto files of our own, and where those of others lie."""

import json

import places

from simtti.workloads.kineto import import_kineto

SHARED = places.TRACES


def event(category, name, start, duration, tid=1, **args):
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": 9,
        "tid": tid,
        "ts": start,
        "dur": duration,
        "args": args,
    }


def op(name, start, duration, *tensors, dtype="c10::BFloat16", concrete=None, **args):
    """An operator whose arguments are these shapes; None is an argument that is no tensor."""
    dims = [list(shape) if shape is not None else [] for shape in tensors]
    types = [dtype if shape is not None else "Scalar" for shape in tensors]
    given = concrete if concrete is not None else [""] * len(tensors)
    known = {"Input Dims": dims, "Input type": types, "Concrete Inputs": given}
    return event("cpu_op", name, start, duration, **known, **args)


def launch(correlation, start, name="cudaLaunchKernel", category="cuda_runtime", duration=1.0, **args):
    return event(category, name, start, duration, correlation=correlation, **args)


def kernel(correlation, start, duration=2.0, name="k", category="kernel", **args):
    facts = {"device": 0, "stream": 7, "correlation": correlation, **args}
    if category == "kernel":
        facts = {
            "grid": [4, 2, 1],
            "block": [128, 1, 1],
            "registers per thread": 32,
            "shared memory": 1024,
            **facts,
        }
    return event(category, name, start, duration, tid=7, **facts)


def write(path, events, **header):
    content = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "GPU", "numSms": 132}], **header}
    path.write_text(json.dumps({**content, "traceEvents": events}, indent=2))
    return path


def imported(tmp_path, *events, **header):
    return import_kineto(write(tmp_path / "a.json", list(events), **header))
