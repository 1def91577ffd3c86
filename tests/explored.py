"""A small spec that tests of exploration vary."""

from simtti.explore.spec import Spec, parse

SPEC = {
    "base": "h100-sxm",
    "parameters": {
        "sm_count": {"values": [40, 80, 132]},
        "hbm_bytes_per_s": {"low": 1e12, "high": 4e12, "steps": 3, "scale": "log"},
    },
    "workloads": [{"workload": "stable-diffusion-1.5", "steps": 2, "launch": "graph"}],
    "objectives": ["latency_s", "area_mm2"],
}


def spec(**changes: object) -> Spec:
    return parse({**SPEC, **changes})
