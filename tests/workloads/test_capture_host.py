"""This machine as a host."""

import pytest

from simtti.hw_configs.hosts import COSTS, load_host

pytest.importorskip("torch", reason="measuring a host needs torch")
pytest.importorskip("diffusers", reason="measuring a host needs diffusers")


def test_a_machine_without_a_gpu_is_measured_as_far_as_its_cpu_shows_it(tmp_path):
    from simtti.workloads.capture_host import capture_host, write_host

    stated = capture_host("cpu")
    path = tmp_path / "mine.yaml"
    write_host(stated, path)
    host = load_host(str(path))
    assert all(1e-11 < getattr(host, name) < 0.1 for name in COSTS)
    # All but diffusers' modules by one speed; how fast, a busy machine would not say.
    base = load_host("slow-vm")
    ratios = [getattr(base, name) / getattr(host, name) for name in COSTS if name != "diffusers_module_s"]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=0.02)
    assert 0.001 < ratios[0] < 20
    said = float(stated["source"].partition("slow-vm's at ")[2].split()[0])
    assert said == pytest.approx(ratios[0], rel=0.02)
    assert "no GPU" in stated["source"]
    # By itself an operator costs less than in a model.
    alone_us = float(stated["source"].partition("elementwise ")[2].split()[0])
    assert alone_us * 1e-6 < host.operator_s
