"""Write the shipped traces: python -m simtti.workloads.build_traces [FOLDER]

The same versions of torch, diffusers, transformers and pyarrow give the same bytes.
"""

import sys
from pathlib import Path

from simtti.workloads import default_flops
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.record import TRACES, record


def build(folder: Path) -> list[Path]:
    """Record every workload at its defaults and save it in `folder`, and the table of their FLOPs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in WORKLOADS:
        path = folder / f"{name}.parquet"
        record(name).save(path)
        paths.append(path)
    paths.append(default_flops.write(folder))
    return paths


if __name__ == "__main__":
    for written in build(Path(sys.argv[1]) if len(sys.argv) > 1 else TRACES):
        print(f"{written}  {written.stat().st_size:,} bytes")
