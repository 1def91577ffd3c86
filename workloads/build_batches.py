"""Write what the shipped traces become at other batches: python -m simtti.workloads.build_batches [WORKLOAD...]

Each workload, or those named, is recorded at batch 2 and 3, from which it is found, and at CHECKED, where what is found must equal the
recording; else it gets no file, and other batches of it are recorded when they are run. After the shipped traces have been built anew,
this is to be run again: a file made for another trace is not used.
"""

import sys
from pathlib import Path

from simtti.workloads.batches import LARGEST, Batches, NotAffine, fit, path_beside
from simtti.workloads.catalogue import WORKLOADS, find
from simtti.workloads.record import record_workload, shipped
from simtti.workloads.trace import Trace

# Beside the two it is found from: an odd one, and the largest that is scaled.
CHECKED = (7, LARGEST)


def build(name: str) -> Batches:
    """What the shipped trace of a workload becomes at other batches.

    Raises:
        NotAffine: it cannot be scaled; the message says why.
    """
    workload = find(name)
    one = Trace.load(shipped(workload))
    if one.options.get("batch") != 1:
        raise NotAffine("the shipped trace is not of batch 1")
    found = fit(one, record_workload(name, batch=2), record_workload(name, batch=3))
    for batch in CHECKED:
        if found.trace(one, batch) != record_workload(name, batch=batch):
            raise NotAffine(f"at batch {batch} it is not what is recorded")
    return found


def write(name: str) -> Path | None:
    """Build and write that file, or take it away; None where there is none."""
    path = path_beside(shipped(find(name)))
    try:
        build(name).save(path)
    except NotAffine as reason:
        path.unlink(missing_ok=True)
        print(f"{name}: other batches are recorded: {reason}", flush=True)
        return None
    print(f"{path}  {path.stat().st_size:,} bytes", flush=True)
    return path


if __name__ == "__main__":
    for each in sys.argv[1:] or WORKLOADS:
        write(each)
