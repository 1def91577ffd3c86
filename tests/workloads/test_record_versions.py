"""Recording with a library of another release than those tried: it works, or says which release it does not know."""

from pathlib import Path

import bounds
import pytest

from simtti.errors import InputError
from simtti.workloads import record

ROOT = Path(__file__).parents[2]
VERSIONS = {name: newest for name, (_, newest) in record.RELEASES.items()}


def recorded(monkeypatch, versions, error):
    def builder(asked, recorder):
        raise error

    monkeypatch.setattr(record, "_import_libraries", lambda what, libraries, otherwise: versions)
    return record.recorded(builder, None, what="a model", name="a-model", options={})


@pytest.mark.parametrize("version", ["5.110.0", "4.57.1"])
def test_an_unknown_release_that_fails_is_named_with_those_that_work(monkeypatch, version):
    pytest.importorskip("torch", reason="recording needs torch")
    error = TypeError("update() got an unexpected keyword argument 'kwargs'")
    with pytest.raises(InputError) as caught:
        recorded(monkeypatch, {**VERSIONS, "transformers": version}, error)
    text = str(caught.value)
    assert f"failed with transformers {version}, which simtti does not know (TypeError: update() got" in text
    oldest, newest = record.RELEASES["transformers"]
    assert f"pip install 'transformers>={oldest},<={newest}'" in text
    assert "\n" not in text


@pytest.mark.parametrize("version", ["5.20.0", VERSIONS["transformers"], VERSIONS["transformers"] + ".dev0"])
def test_a_bug_with_a_known_release_stays_one(monkeypatch, version):
    pytest.importorskip("torch", reason="recording needs torch")
    with pytest.raises(TypeError, match="a bug"):
        recorded(monkeypatch, {**VERSIONS, "transformers": version}, TypeError("a bug"))


def test_a_mistake_of_the_users_stays_one_whatever_the_release(monkeypatch):
    pytest.importorskip("torch", reason="recording needs torch")
    with pytest.raises(InputError, match=r"^height is 7$"):
        recorded(monkeypatch, {**VERSIONS, "torch": "99.0"}, InputError("height is 7"))


def test_known_releases_begin_at_the_bounds_and_hold_what_is_tested_every_day():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert set(pinned) == set(VERSIONS)
    assert all(record.is_known(name, version) for name, version in pinned.items())
    lowest = dict(line.split("==") for line in bounds.lowest())
    oldest = {name: first for name, (first, _) in record.RELEASES.items() if name != "torch"}
    assert oldest == {name: lowest[name] for name in oldest}


def test_every_library_has_a_lower_bound():
    names = {line.partition("==")[0] for line in bounds.lowest()}
    assert {"simpy", "numpy", "pandas", "matplotlib", "transformers", "optuna"} <= names
    assert len(names) == len(bounds.lowest())
