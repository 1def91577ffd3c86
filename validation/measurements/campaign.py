"""Takes a campaign of measurements on a machine with a CUDA GPU and no network: a quarter of an hour, or in pieces.

    python3 validation/measurements/campaign.py day      --out OUT --budget-s 900
    python3 validation/measurements/campaign.py look     --out OUT
    python3 validation/measurements/campaign.py kernels  --out OUT --results RESULTS
    python3 validation/measurements/campaign.py traces   --out OUT --results RESULTS
    python3 validation/measurements/campaign.py counters --out OUT --results RESULTS
    python3 validation/measurements/campaign.py check    --results RESULTS

The same as `simtti capture campaign` where simtti is installed. Each piece writes at most 8 files of under 16 MB to OUT; RESULTS holds what earlier pieces wrote, which is not measured
again. validation/measurements/campaign.md says what to run in which order and what comes of it. simtti need not be installed, and
wheels in the folder carry/ beside the checkout's README are used without being installed either.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtti.jobs import Failure
    from simtti.workloads.capture_many import Captured, Job
    from simtti.workloads.catalogue import Workload

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE_BYTES = 15_500_000
MAX_ARCHIVES = 4
LEAST_S = 25.0  # a trace is not begun with less left
REPEATS = 3  # clean times of a trace
_MEASURES = ("torch", "numpy", "pandas", "pyarrow", "click", "rich", "filelock")
_CAPTURES = (*_MEASURES, "diffusers", "transformers")
MODULES = {
    "day": (*_CAPTURES, "yaml", "pydantic", "simpy"),
    "look": _CAPTURES,
    "kernels": _MEASURES,
    "traces": _CAPTURES,
    "counters": _MEASURES,
}
# The workloads whose steps are wanted most: a UNet, its video forms, SDXL, then transformers; the rest as they come.
WANTED = ("stable-diffusion-1.5", "modelscope-t2v", "svd", "animatediff", "sdxl", "stable-diffusion-2.1", "wan2.1-1.3b",
          "cogvideox-2b", "pixart-sigma", "sd3-medium", "make-a-video", "imagen", "muse", "parti", "phenaki")  # fmt: skip
ATTENTION = ("flash", "baseline")
# Of a day: the share of its time for traces, and what counters need at its end.
TRACES_SHARE = 0.55
COUNTERS_S = 65.0

Run = Callable[[list[str], float], "subprocess.CompletedProcess[str]"]
# What takes traces: of jobs, into a folder, on a device, until a time: each with what it came to, as they end.
Take = Callable[["list[Job]", Path, str, float], "Iterator[tuple[Job, Captured | Failure]]"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("piece", choices=[*MODULES, "check"])
    parser.add_argument("--out", type=Path, help="An empty folder for what the piece writes.")
    parser.add_argument("--results", type=Path, help="A folder with what earlier pieces wrote.")
    parser.add_argument("--budget-s", type=float, default=540.0, help="Seconds the piece may take.")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the campaign out.")
    given = parser.parse_args(arguments)
    if given.piece != "check":
        if given.out is None:
            parser.error(f"{given.piece} needs --out")
        return take(given.piece, given.out, given.results, given.budget_s, given.device)
    with tempfile.TemporaryDirectory() as folder:
        sys.path[:0] = [str(make_site(Path(folder), ROOT))]
        return check(given.results or ROOT)


def take(piece: str, out: Path, results: Path | None, budget_s: float, device: str) -> int:
    """Take a piece: 0 where it has brought something. out: a folder, made if need be."""
    end = time.monotonic() + budget_s
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder), ROOT)
        sys.path[:0] = [str(site)]
        try:
            lacking = missing(MODULES[piece], site)
            if lacking:
                print(
                    f"campaign: missing modules: {', '.join(lacking)}; put their wheels into {ROOT / 'carry'}"
                )
                return 2
            out.mkdir(parents=True, exist_ok=True)
            return PIECES[piece](out, results, end, device, runner(site, out / "log.txt"))
        finally:
            sys.path.remove(str(site))


def make_site(folder: Path, root: Path) -> Path:
    """A folder for PYTHONPATH: simtti, as a link to the checkout, and the wheels carried along."""
    site = folder / "site"
    site.mkdir()
    (site / "simtti").symlink_to(root, target_is_directory=True)
    wheels = sorted(map(str, (root / "carry").glob("*.whl")))
    if wheels:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-compile",
            "--target",
            str(site),
        ]
        subprocess.run([*pip, *wheels], check=True)
    return site


def missing(modules: Iterable[str], site: Path) -> list[str]:
    """Those of the modules that are nowhere to be found."""
    code = (
        "import importlib.util, sys; print(*(m for m in sys.argv[1:] if importlib.util.find_spec(m) is None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules],
        capture_output=True,
        text=True,
        check=True,
        env=_environment(site),
    )
    return done.stdout.split()


def _environment(site: Path) -> dict[str, str]:
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def runner(site: Path, log: Path) -> Run:
    """Runs `simtti` with arguments for so many seconds at most; what it prints goes to the log too."""

    def run(arguments: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "simtti.cli", *arguments]
        try:
            done = subprocess.run(
                command,
                env=_environment(site),
                capture_output=True,
                text=True,
                timeout=max(seconds, 1.0),
                check=False,
            )
        except subprocess.TimeoutExpired:
            done = subprocess.CompletedProcess(command, 124, "", f"stopped after {seconds:.0f} s")
        said = (done.stdout + done.stderr).strip()
        with log.open("a") as file:
            file.write(f"$ simtti {' '.join(arguments)}\n{said}\n[{done.returncode}]\n")
        print(
            f"simtti {' '.join(arguments[:2])} ... {said.splitlines()[-1] if said else done.returncode}",
            flush=True,
        )
        return done

    return run


# ---- the pieces


def look(out: Path, results: Path | None, end: float, device: str, run: Run) -> int:
    """A minute of every family and one trace: does it all work here?"""
    kernels = run(["capture", "kernels", "--suite", "tti", "--device", device, "--budget-s", "45",
                   "-o", str(out / "kernels-look.parquet")], end - time.monotonic())  # fmt: skip
    from simtti.workloads.capture_many import Job

    return kernels.returncode or take_traces([Job("stable-diffusion-1.5")], out, set(), end, device)


def kernels(out: Path, results: Path | None, end: float, device: str, run: Run) -> int:
    """Microbenchmarks until the time is up, from where the files in `results` stop."""
    left = end - time.monotonic()
    words = ["capture", "kernels", "--suite", "tti", "--device", device, "--budget-s", f"{left - 20:.0f}"]
    for path in sorted(results.rglob("kernels-*.parquet")) if results else []:
        words += ["--skip", str(path)]
    return run([*words, "-o", str(out / f"kernels-{_stamp()}.parquet")], left).returncode


def traces(out: Path, results: Path | None, end: float, device: str, run: Run) -> int:
    """Timed traces of every workload until the time is up, without those that `results` tells of."""
    from simtti.workloads.catalogue import WORKLOADS

    return take_traces(trace_jobs(WORKLOADS), out, already_taken(results), end, device)


def day(out: Path, results: Path | None, end: float, device: str, run: Run) -> int:
    """All that a quarter of an hour gives: traces first, then microbenchmarks, counters at the end. What fails costs the others
    nothing."""
    left = end - time.monotonic()
    counters_s = COUNTERS_S if left > 4 * COUNTERS_S else 0.0
    failed = traces(out, results, end - left * (1 - TRACES_SHARE), device, run)
    failed |= kernels(out, results, end - counters_s, device, run)
    if counters_s:
        counters(out, results, end, device, run)  # many machines do not let one read them
    return 1 if failed else 0


def counters(out: Path, results: Path | None, end: float, device: str, run: Run) -> int:
    """Hardware counters of a few kernels, where Nsight Compute is and may read them."""
    left = end - time.monotonic()
    words = [
        "capture",
        "kernels",
        "--suite",
        "tti",
        "--device",
        device,
        "--counters",
        "--budget-s",
        f"{left - 10:.0f}",
    ]
    return run([*words, "-o", str(out / f"counters-{_stamp()}.parquet")], left).returncode


PIECES: dict[str, Callable[[Path, Path | None, float, str, Run], int]] = {
    "day": day, "look": look, "kernels": kernels, "traces": traces, "counters": counters,
}  # fmt: skip


def _stamp() -> str:
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")


def trace_jobs(workloads: dict[str, Workload]) -> list[Job]:
    """Every workload at its default shape with fused attention, then with unfused, then both at a second shape."""
    from simtti.workloads.capture_many import Job

    names = [name for name in WANTED if name in workloads] + [
        name for name in workloads if name not in WANTED
    ]
    jobs = []
    for second in (False, True):
        for attention in ATTENTION:
            for name in names:
                shape = second_shape(workloads[name]) if second else {}
                if shape or not second:
                    jobs.append(Job(name, tuple(shape.items()), attention))
    return jobs


def second_shape(workload: Workload) -> dict[str, int]:
    """Half the frames, else half the height and width, else four at once: what the workload takes."""
    from simtti.errors import InputError

    default = workload.defaults
    shapes: list[dict[str, int]] = []
    if default.frames is not None:
        unit = workload.frame_multiple
        shapes.append(
            {"frames": default.frames // 2 if unit == 1 else (default.frames - 1) // (2 * unit) * unit + 1}
        )
    if default.height is not None and default.width is not None:
        unit = workload.size_multiple
        shapes.append(
            {"height": default.height // (2 * unit) * unit, "width": default.width // (2 * unit) * unit}
        )
    for shape in (*shapes, {"batch": 4 * default.batch}):
        try:
            if workload.options(**shape) != default:
                return shape
        except InputError:
            continue
    return {}


def already_taken(results: Path | None) -> set[str]:
    """The names of the traces that earlier pieces took or failed to take, from the lists they left."""
    taken: set[str] = set()
    for path in sorted(results.rglob("traces-*.json")) if results else []:
        found = json.loads(path.read_text())
        taken |= set(found["taken"]) | set(found["failed"])
    return taken


def take_traces(
    jobs: list[Job], out: Path, taken: set[str], end: float, device: str, take_all: Take | None = None
) -> int:
    """Capture the jobs that are not taken yet, as far as time and files allow. The list is kept up to date throughout.

    A job that did not get all the time it needed counts as neither taken nor failed. take_all: captures them; simtti's own
    `capture_many` if None.
    """
    stamp = _stamp()
    listing: dict[str, Any] = {"taken": [], "failed": {}}
    archives: list[Path] = []
    todo = [job for job in jobs if job.name not in taken]
    with tempfile.TemporaryDirectory() as folder:
        for job, found in (take_all or _side_by_side)(todo, Path(folder), device, end - 5):
            path = Path(folder, job.name)
            if path.exists():
                if not add_to_archive(path, out, stamp, archives):
                    break
                path.unlink()
                listing["taken"].append(job.name)
            else:
                listing["failed"][job.name] = getattr(found, "reason", "no reason given")
                print(f"{job.name}: {listing['failed'][job.name]}", flush=True)
            (out / f"traces-{stamp}.json").write_text(json.dumps(listing, indent=1) + "\n")
    left_over = len(todo) - len(listing["taken"]) - len(listing["failed"])
    print(
        f"traces: {len(listing['taken'])} taken, {len(listing['failed'])} failed, {left_over} left",
        flush=True,
    )
    return 0 if listing["taken"] or not todo else 1


def _side_by_side(
    jobs: list[Job], folder: Path, device: str, end: float
) -> Iterator[tuple[Job, Captured | Failure]]:
    from simtti.workloads.capture_many import capture_many

    return capture_many(jobs, folder, device=device, repeats=REPEATS, end_s=end, least_s=LEAST_S)


def add_to_archive(path: Path, out: Path, stamp: str, archives: list[Path]) -> bool:
    """Add a file to the newest archive, or to another where that would grow too large; False if there is no room."""
    size = path.stat().st_size + 3 * tarfile.RECORDSIZE
    if not archives or archives[-1].stat().st_size + size > MAX_FILE_BYTES:
        if len(archives) == MAX_ARCHIVES or size > MAX_FILE_BYTES:
            return False
        archives.append(out / f"traces-{stamp}-{len(archives) + 1}.tar")
    with tarfile.open(archives[-1], "a") as archive:
        archive.add(path, path.name)
    return True


# ---- checking what came back


def check(results: Path) -> int:
    """Read every file of `results` and say what it holds; 1 if something is wrong."""
    problems = 0
    for path in sorted([*results.rglob("kernels-*.parquet"), *results.rglob("counters-*.parquet")]):
        problems += _checked(path, _describe_measurements)
    for path in sorted(results.rglob("traces-*.tar")):
        with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member)
                target = Path(folder, Path(member.name).name)
                target.write_bytes(content.read() if content else b"")
                problems += _checked(target, _describe_trace)
    print(f"{problems} problems")
    return 1 if problems else 0


def _checked(path: Path, describe: Callable[[Path], str]) -> int:
    try:
        print(f"{path.name}: {describe(path)}")
    except Exception as error:  # whatever is wrong with one file, the others are read too
        print(f"{path.name}: PROBLEM: {error}")
        return 1
    return 0


def _describe_measurements(path: Path) -> str:
    from simtti.validation.measurements.bench.file import read_measurements

    table, metadata = read_measurements(path)
    rows = table.select(["family", "failure", "warm_us", "cold_us", "cold_kernel_us"]).to_pylist()
    failed = sum(row["failure"] is not None for row in rows)
    if failed > len(rows) / 2:
        raise ValueError(
            f"{failed} of {len(rows)} rows failed, the first with: {next(r['failure'] for r in rows if r['failure'])}"
        )
    families = sorted({row["family"] for row in rows})
    profiled = sum(row["cold_kernel_us"] is not None for row in rows)
    return (f"{metadata['device']['name']}, {len(metadata['runs'])} runs, {len(rows)} rows of {len(families)} families, "
            f"{failed} failed, {profiled} with kernels")  # fmt: skip


def _describe_trace(path: Path) -> str:
    from simtti.workloads.trace import Trace

    trace = Trace.load(path)
    timing = trace.timing
    if timing is None:
        raise ValueError("it has no times")
    latency_s = (timing.end_to_end or {}).get("latency_s")
    whole = (timing.end_to_end or {}).get("in_one_go", {})
    busy_s = sum(kernel.duration_us for kernel in timing.kernels) / 1e6
    if timing.device.get("name") and not timing.kernels and "sm_count" in timing.device:
        raise ValueError("it was captured on a GPU and has no kernels")
    return (f"{trace.workload} on {timing.device.get('name')}, {len(timing.kernels)} kernels, {busy_s:.4f} s in one pass, "
            f"latency {latency_s} s, in one go {whole.get('latency_s')} s and {whole.get('energy_j')} J")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
