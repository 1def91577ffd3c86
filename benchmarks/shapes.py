"""What is scaled beside what is recorded: python benchmarks/shapes.py [--shapes 40] [--workloads 15] [--seed 0] [NAME...]

Draws workloads that scale, of those named where some are, and shapes within what each of them says that it has; records each shape with torch and compares the two
traces, operator by operator. Exits with 1 where one differs.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence

from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.record import record_workload, shipped
from simtti.workloads.shapes import Scope, Shapes, path_beside
from simtti.workloads.trace import Trace


def drawn(shapes: int, workloads: int, rng: random.Random, of: Sequence[str]) -> list[tuple[str, Scope]]:
    """A scope for each shape: of as many of the workloads `of`, one after the other until there are enough shapes."""
    names = [name for name in of if path_beside(shipped(WORKLOADS[name])).exists()]
    chosen = rng.sample(names, min(workloads, len(names)))
    scopes = {name: Shapes.load(path_beside(shipped(WORKLOADS[name]))).scopes for name in chosen}
    return [
        (name, rng.choice(scopes[name]))
        for name in sorted(chosen[number % len(chosen)] for number in range(shapes))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", type=int, default=40)
    parser.add_argument("--workloads", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", metavar="NAME")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    equal = 0
    points = drawn(asked.shapes, asked.workloads, rng, asked.names or [*WORKLOADS])
    for name, scope in points:
        options = scope.drawn(rng)
        begin = time.perf_counter()
        scaled = scope.trace(Trace.load(shipped(WORKLOADS[name])), options)
        scaled_s = time.perf_counter() - begin
        recorded = record_workload(name, **options)
        recorded_s = time.perf_counter() - begin - scaled_s
        equal += scaled == recorded
        shape = ", ".join(f"{one.name} {options[one.name]}" for one in scope.variables)
        operators = sum(1 for _ in recorded.operators())
        print(
            f"{name:32} {shape:44} {operators:6,} operators {'equal' if scaled == recorded else 'DIFFERENT'}"
            f"  scaled {scaled_s:.1f} s, recorded {recorded_s:.1f} s",
            flush=True,
        )
    print(f"{equal} of {len(points)} shapes of {len({name for name, _ in points})} workloads equal")
    return int(equal < len(points))


if __name__ == "__main__":
    sys.exit(main())
