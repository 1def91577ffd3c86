"""Several iterations and several GPUs in one file: a trace is one of them."""

import pytest
from kineto_files import event, imported, kernel, launch, op, write

from simtti.errors import InputError
from simtti.workloads.kineto import import_kineto


def iteration(number, at, kernels=1):
    marks = event("user_annotation", f"ProfilerStep#{number}", at, 90)
    done = [marks, op("aten::mm", at + 1, 50, (2, 3), (3, 4))]
    for which in range(kernels):
        correlation = 100 * number + which + 1
        done += [launch(correlation, at + 2 + which), kernel(correlation, at + 60 + which, name=f"k{number}")]
    return done


def names(trace):
    return [kernel.name for kernel in trace.timing.kernels]


FIVE = [each for number in range(5) for each in iteration(number, 100 * number, 2 if number < 4 else 1)]


def test_one_step_is_taken_and_it_says_so(tmp_path):
    path = write(tmp_path / "a.json", FIVE)
    trace = import_kineto(path)
    assert names(trace) == ["k3", "k3"]  # the last with as many kernels as the others
    assert trace.provenance["profiler_steps"] == 5
    assert trace.provenance["profiler_step"] == 3
    assert "--profiler-step" in trace.provenance["remarks"][0]
    assert min(time.start_us for time in trace.timing.host) == 0.0
    assert names(import_kineto(path, step=4)) == ["k4"]
    assert len(names(import_kineto(path, step="all"))) == 9
    with pytest.raises(InputError, match=r"has no ProfilerStep 7: it has steps 0, 1, 2, 3, 4"):
        import_kineto(path, step=7)


def test_one_step_alone_is_the_whole_file(tmp_path):
    before = [op("aten::mm", 0, 5, (2, 3), (3, 4)), launch(1, 1), kernel(1, 8)]
    assert len(names(imported(tmp_path, *before, *iteration(2, 100)))) == 2
    with pytest.raises(InputError, match="it has no ProfilerStep"):
        import_kineto(write(tmp_path / "b.json", before), step=1)


def rank(process, device, name, start=0, gpu=None):
    """Events of one rank; all ranks count correlations alike."""
    ours = [op("aten::mm", start, 50, (2, 3), (3, 4)), launch(1, start + 1), launch(2, start + 3)]
    on_gpu = [kernel(n, start + 10 * n, name=name, device=device) for n in (1, 2)]
    return [each | {"pid": process} for each in ours] + [
        each | {"pid": device if gpu is None else gpu} for each in on_gpu
    ]


@pytest.mark.parametrize("apart", [0, 1000])
@pytest.mark.parametrize("order", ["one after the other", "by time"])
def test_ranks_are_never_added_up(tmp_path, apart, order):
    events = rank(1, 0, "a") + rank(2, 1, "b", apart)
    if order == "by time":
        events.sort(key=lambda each: each["ts"])
    path = write(tmp_path / "a.json", events)
    with pytest.raises(InputError, match=r"2 GPUs \(0, 1\).*--device"):
        import_kineto(path)
    for device, name in ((0, "a"), (1, "b")):
        trace = import_kineto(path, device=device)
        assert names(trace) == [name, name]
        assert len(list(trace.operators())) == 1
        assert all(each.operator == 0 for each in trace.timing.kernels)
    with pytest.raises(InputError, match="no kernels of GPU 5"):
        import_kineto(path, device=5)


def test_ranks_that_call_their_gpus_alike(tmp_path):
    path = write(tmp_path / "a.json", rank(1, 0, "a") + rank(2, 0, "b", 500))
    with pytest.raises(InputError, match="2 ranks"):
        import_kineto(path)
    assert [names(import_kineto(path, device=n)) for n in (0, 1)] == [["a", "a"], ["b", "b"]]


def test_one_process_with_two_gpus(tmp_path):
    events = [op("aten::mm", 0, 5, (2, 3), (3, 4)), launch(1, 1), kernel(1, 10, name="a")]
    events += [op("aten::mm", 20, 5, (2, 3), (3, 4)), launch(2, 21), kernel(2, 30, name="b", device=1)]
    trace = import_kineto(write(tmp_path / "a.json", events), device=1)
    assert names(trace) == ["b"]
    assert len(list(trace.operators())) == 1
