"""A short run of the fuzz; `make fuzz` has the long one."""

import random

import fuzz
import pytest

# Of those that simulate or build a report.
FEWER = {"points": 5, "published": 8, "predictions": 15, "command": 20}


@pytest.mark.parametrize("name", fuzz.READERS)
def test_odd_inputs_are_answered_or_refused(name):
    assert fuzz.fuzz(name, inputs=FEWER.get(name, 60), seed=7) == []


def test_the_fuzz_sees_what_is_wrong(monkeypatch):
    def reader(chance, folder):
        fuzz.checked({"latency_s": chance.choice([1.0, float("nan"), -1.0])})

    monkeypatch.setitem(fuzz.READERS, "broken", reader)
    assert 0 < len(fuzz.fuzz("broken", inputs=20, seed=0)) < 20


def test_the_inputs_are_neither_all_good_nor_all_bad(tmp_path):
    from simtti.errors import InputError

    refused = 0
    for number in range(30):
        try:
            fuzz.kineto(random.Random(number), tmp_path)
        except InputError:
            refused += 1
    assert 0 < refused < 25
