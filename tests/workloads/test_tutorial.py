"""docs/tutorial-own-model.md, run as it stands."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import simtti
from simtti.workloads.record import quiet

PAGE = Path(__file__).parents[2] / "docs" / "tutorial-own-model.md"
BLOCK = re.compile(r"^```python(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_tutorial_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    with quiet():
        for title, code in BLOCK.findall(PAGE.read_text()):
            if title:
                Path(title).write_text(code)
            else:
                exec(compile(code, PAGE.name, "exec"), names)
    result = names["result"]
    attention = [op for op in names["trace"].operators() if op.category == "Attention"]
    assert len(attention) == 12
    assert result.trace.phases[0].steps[0].count == 50
    assert "Attention" in capsys.readouterr().out
    assert list(names["table"].error) == ["", "", ""]
    assert any(str(name).startswith("model.layers.") for name in names["operators"].index)
    assert [phase.name for phase in names["phases"]] == ["text_encoder", "denoising", "decoder"]
    assert names["phases"][1].steps == 40
    trace = simtti.record("my_model.py:denoiser", steps=30, height=512)
    assert trace.options == {"batch": 1, "height": 512, "dtype": "bf16", "steps": 30}
    assert trace.phases[0].steps[0].operators[0].inputs[0].shape == (2, 2048, 1152)
