"""simtti: how fast, and at what energy, a GPU or a chip that does not exist yet runs text-to-image and text-to-video.

    run, sweep, compare, explore    one inference, many, devices side by side, hardware that does not exist
    advise                          which of all ways is the cheapest, the fastest, the most efficient
    predict                         single operators
    record, record_pipeline         what an inference does, without a GPU: a workload, any module of PyTorch, any pipeline of diffusers'
    import_trace                    what torch.profiler wrote of one
    profile                         what an inference asks of any hardware
    report, plot                    the page of a run, and its plot
    validate                        the model against the kernels of a measured trace
    capture, register               what one does on a GPU; a workload of one's own
    calibrate                       a device's parameters from measurements
    load                            a device, by name or from its file
    Hardware, Trace, Result         what they take and give; InputError: what a user can mend

>>> import simtti
>>> result = simtti.run("stable-diffusion", hw="h100-sxm", steps=2)
>>> result.breakdown_table.category[0]
'Convolution'
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtti.errors import InputError
    from simtti.explore.api import explore
    from simtti.hw_configs.devices import load
    from simtti.hw_configs.hardware import Hardware
    from simtti.pages.plot import plot
    from simtti.pages.run import report
    from simtti.simulator.advise import advise
    from simtti.simulator.compare import compare
    from simtti.simulator.predict import predict
    from simtti.simulator.result import Result
    from simtti.simulator.run import run
    from simtti.simulator.sweep import sweep
    from simtti.validation.fit.calibrate import calibrate
    from simtti.validation.judge.trace import validate
    from simtti.workloads.capture import capture
    from simtti.workloads.catalogue import register
    from simtti.workloads.kineto import import_kineto as import_trace
    from simtti.workloads.own import record_pipeline
    from simtti.workloads.profile import profile
    from simtti.workloads.record import record
    from simtti.workloads.trace import Trace

# What is public, and where it lives, by another name where one stands behind a colon. Loaded when first asked for: `simtti --help` needs none of it.
_PUBLIC = {
    "run": "simtti.simulator.run",
    "predict": "simtti.simulator.predict",
    "sweep": "simtti.simulator.sweep",
    "compare": "simtti.simulator.compare",
    "advise": "simtti.simulator.advise",
    "explore": "simtti.explore.api",
    "record": "simtti.workloads.record",
    "record_pipeline": "simtti.workloads.own",
    "import_trace": "simtti.workloads.kineto:import_kineto",
    "profile": "simtti.workloads.profile",
    "capture": "simtti.workloads.capture",
    "register": "simtti.workloads.catalogue",
    "report": "simtti.pages.run",
    "plot": "simtti.pages.plot",
    "calibrate": "simtti.validation.fit.calibrate",
    "validate": "simtti.validation.judge.trace",
    "load": "simtti.hw_configs.devices",
    "Hardware": "simtti.hw_configs.hardware",
    "Result": "simtti.simulator.result",
    "Trace": "simtti.workloads.trace",
    "InputError": "simtti.errors",
}
__all__ = [
    "Hardware",
    "InputError",
    "Result",
    "Trace",
    "advise",
    "calibrate",
    "capture",
    "compare",
    "explore",
    "import_trace",
    "load",
    "plot",
    "predict",
    "profile",
    "record",
    "record_pipeline",
    "register",
    "report",
    "run",
    "sweep",
    "validate",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        return version("simtti")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'simtti' has no attribute {name!r}")
    module, _, other = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), other or name)
