"""Write what the shipped traces become at other batches: python -m simtti.workloads.build_batches [WORKLOAD...]

Each workload, or those named, is recorded at batch 2 and 3, from which it is found, and at the first of CHECKED where what is found
equals the recording: so far it is scaled. Pipelines change what they do above some batch and stay with that (diffusers copies images
before it enlarges them where they have 2^31 elements, or from 64 images on), so that what holds there holds below. Where it holds
nowhere there is no file, and other batches are recorded when they are run. After the shipped traces have been built anew, this is to be
run again: a file made for another trace is not used.
"""

import sys
from pathlib import Path

from simtti.workloads.batches import Batches, NotAffine, fit, path_beside
from simtti.workloads.catalogue import WORKLOADS, find
from simtti.workloads.record import record_workload, shipped
from simtti.workloads.trace import Trace

# Beside the two it is found from; the largest first.
CHECKED = (64, 32, 16, 8, 4)


def build(name: str) -> Batches:
    """What the shipped trace of a workload becomes at other batches.

    Raises:
        NotAffine: it cannot be scaled; the message says why.
    """
    workload = find(name)
    path = shipped(workload)
    one = Trace.load(path)
    if one.options.get("batch") != 1:
        raise NotAffine("the shipped trace is not of batch 1")
    found = fit(one, record_workload(name, batch=2), record_workload(name, batch=3))
    for batch in CHECKED:
        if found.trace(one, batch) == record_workload(name, batch=batch):
            return found.made_for(path, batch)
    raise NotAffine(f"at batch {CHECKED[-1]} it is not what is recorded")


def write(name: str) -> Path | None:
    """Build and write that file, or take it away; None where there is none."""
    path = path_beside(shipped(find(name)))
    try:
        build(name).save(path)
    except NotAffine as reason:
        path.unlink(missing_ok=True)
        print(f"{name}: other batches are recorded: {reason}", flush=True)
        return None
    print(
        f"{path}  {path.stat().st_size:,} bytes, to batch {Batches.load(path).content['largest']}", flush=True
    )
    return path


if __name__ == "__main__":
    for each in sys.argv[1:] or WORKLOADS:
        write(each)
