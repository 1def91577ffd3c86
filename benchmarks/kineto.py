"""How fast Kineto traces are imported: events of the file a second, the whole way from the .gz to a Trace.

    python benchmarks/kineto.py [FILE ...]        the shared traces beside the project if no file is given

Each line is the best of five imports, with the memory that the process had at its peak so far.
"""

import gzip
import json
import resource
import sys
import time
from pathlib import Path

from simtti.workloads.kineto import import_kineto, summary

SHARED = Path(__file__).parents[2] / "shared" / "traces"
# What the project promises.
EVENTS_PER_SECOND = 50_000


def main() -> int:
    files = [Path(name) for name in sys.argv[1:]] or sorted(SHARED.glob("*.json.gz"))
    if not files:
        print(f"there are no traces in {SHARED}; give files")
        return 0
    slow = 0
    for path in files:
        best = min(_seconds(path) for _ in range(5))
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        events = _count(path)
        found = summary(import_kineto(path))
        slow += events / best < EVENTS_PER_SECOND
        print(
            f"{path.name:36} {events:8,} events {best * 1e3:7.0f} ms {events / best:10,.0f} events/s "
            f"{found['kernels']:6,} kernels {found['operators']:7,} operators {peak_mib:5.0f} MiB"
        )
    return 1 if slow else 0


def _seconds(path: Path) -> float:
    start = time.perf_counter()
    import_kineto(path)
    return time.perf_counter() - start


def _count(path: Path) -> int:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return len(json.load(file)["traceEvents"])


if __name__ == "__main__":
    sys.exit(main())
