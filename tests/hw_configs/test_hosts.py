"""Hosts by name and by file."""

import pytest

from simtti.errors import InputError
from simtti.hw_configs.hosts import COSTS, hosts, load_host

SLOW = load_host("slow-vm")


def _written(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_faster_host_spends_less_on_everything_and_queues_as_much():
    twice = SLOW.faster(2.0)
    assert all(getattr(twice, name) == getattr(SLOW, name) / 2 for name in COSTS)
    assert twice.queue_depth == SLOW.queue_depth


def test_the_hosts_that_ship_differ():
    assert len({host.operator_s for host in hosts().values()}) == len(hosts()) >= 3
    assert all(host.diffusers_module_s > host.module_s for host in hosts().values())


def test_a_file_states_a_base_its_speed_and_what_differs(tmp_path):
    found = load_host(_written(tmp_path, "base: slow-vm\nspeed: 4\nview_s: 1.0e-6\nsource: what if\n"))
    assert found.name == "mine"
    assert found.view_s == 1e-6
    assert found.linear_s == SLOW.linear_s / 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("view_s: 1.0e-6\nsource: what if\n", "module_s, diffusers_module_s, operator_s, linear_s"),
        ("base: slow-vm\nview_s: -1\nsource: what if\n", "view_s"),
        ("base: slow-mv\nsource: what if\n", "did you mean 'slow-vm'"),
        ("base: slow-vm\nmodul_s: 1.0e-6\nsource: what if\n", "modul_s"),
        ("base: slow-vm\n", "source"),
        ("- 3\n", "must be a mapping"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, text, words):
    with pytest.raises(InputError, match=r"mine\.yaml") as caught:
        load_host(_written(tmp_path, text))
    assert words in str(caught.value)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"base: slow-vm\nsource: \xff\xfe\n")
    with pytest.raises(InputError, match=r"mine\.yaml: cannot be read"):
        load_host(str(path))


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot be read"):
        load_host("nowhere.yaml")
