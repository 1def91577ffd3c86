"""Recording with a library of another release than those tried: it works, or says which release it does not know."""

from pathlib import Path

import bounds
import pytest

from simtti.errors import InputError
from simtti.workloads import record

ROOT = Path(__file__).parents[2]
VERSIONS = dict(record.NEWEST_TRIED)


def recorded(monkeypatch, versions, error):
    def builder(asked, recorder):
        raise error

    monkeypatch.setattr(record, "_import_libraries", lambda what: versions)
    return record.recorded(builder, None, what="a model", name="a-model", options={})


def test_a_newer_release_that_fails_is_named_with_the_one_that_works(monkeypatch):
    pytest.importorskip("torch", reason="recording needs torch")
    error = TypeError("update() got an unexpected keyword argument 'kwargs'")
    with pytest.raises(InputError) as caught:
        recorded(monkeypatch, {**VERSIONS, "transformers": "5.110.0"}, error)
    text = str(caught.value)
    assert "failed with transformers 5.110.0, which simtti does not know yet (TypeError: update() got" in text
    assert f"pip install 'transformers<={VERSIONS['transformers']}'" in text
    assert "\n" not in text


@pytest.mark.parametrize("version", ["5.2.0", VERSIONS["transformers"], VERSIONS["transformers"] + ".dev0"])
def test_a_bug_with_releases_that_were_tried_stays_one(monkeypatch, version):
    pytest.importorskip("torch", reason="recording needs torch")
    with pytest.raises(TypeError, match="a bug"):
        recorded(monkeypatch, {**VERSIONS, "transformers": version}, TypeError("a bug"))


def test_a_mistake_of_the_users_stays_one_whatever_the_release(monkeypatch):
    pytest.importorskip("torch", reason="recording needs torch")
    with pytest.raises(InputError, match=r"^height is 7$"):
        recorded(monkeypatch, {**VERSIONS, "torch": "99.0"}, InputError("height is 7"))


def test_what_is_tested_every_day_lies_within_what_was_tried():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert set(pinned) == set(VERSIONS)
    assert not [name for name, version in pinned.items() if record._is_newer(version, VERSIONS[name])]


def test_every_library_has_a_lower_bound():
    names = {line.partition("==")[0] for line in bounds.lowest()}
    assert {"simpy", "numpy", "pandas", "matplotlib", "transformers", "optuna"} <= names
    assert len(names) == len(bounds.lowest())
