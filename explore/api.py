"""`simtti explore`: from a spec to a folder of results."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from simtti.errors import InputError
from simtti.explore import analysis, search
from simtti.explore.design import device_file, make
from simtti.explore.engines import engine as engine_called
from simtti.explore.exploration import Exploration
from simtti.explore.journal import Study
from simtti.explore.spec import Spec, read
from simtti.files import write_table, write_text
from simtti.simulator.uncertainty.draws import interval_of
from simtti.simulator.uncertainty.residuals import Interval
from simtti.words import joined, plain

if TYPE_CHECKING:
    import pandas as pd

_MOST_FILES = 50  # device files written for the Pareto set
BASE = "base"  # among the designs of `limits`
_MOST_LIMITS = 50  # designs of the Pareto set whose limits and intervals are looked at


def explore(
    spec: Spec | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    report: bool | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Exploration:
    """Explore the designs of `spec` and write what was found into the folder `out`.

    Args:
        spec: a Spec, the path of one, or the name of a shipped example.
        engine, workers, address: where designs are evaluated (`engines`).
        report: write report.html, which needs matplotlib and Jinja2; None: where these are installed.
        progress: called with (finished designs, designs).
        say: called with what is not as one might think: kept results that do not count, another process that is waited for.

    Writes results.parquet, pareto.csv (with the intervals of its first 50 designs, and which of them are not surely better than which), sensitivity.csv, limits.parquet, designs/NUMBER.yaml of the Pareto set, report.html.
    Interrupted, it keeps what is done; the same call goes on from there.

    Raises:
        InputError: a spec, folder or engine that cannot be used; a folder with the results of another spec; a report is asked for, and what it needs is not installed.
    """
    import pandas as pd

    question = spec if isinstance(spec, Spec) else read(spec)
    search.check(question)
    has_page = can_report(report, say)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from None
    _keep_to(question, folder)
    middle = search.centre(question)
    around = analysis.neighbours(question, middle)
    total = search.size(question)
    with engine_called(engine, workers, address) as run:
        study = Study(question, folder, run, progress, say)
        found = search.run(question, lambda designs: study.evaluate(designs, total))
        marks = analysis.mark(question, [figures for _, figures in found])
        rows = [
            {"design": number, **_columns(question, values, figures), "feasible": feasible, "pareto": front}
            for number, ((values, figures), (feasible, front)) in enumerate(zip(found, marks, strict=True))
        ]
        table = pd.DataFrame(rows)
        front = [found[number][0] for number in table.index[table.pareto]][:_MOST_LIMITS]
        points = [middle, *(values for pair in around.values() for values in pair)]
        looked_at = [*(question.complete(values) for values in points), *front]
        *figures, of_base = study.evaluate([*looked_at, {}], total, limits=True)
    table = _with_intervals(
        question, table, dict(zip(table.index[table.pareto], figures[len(points) :], strict=False))
    )
    names = ["middle", *(f"{name} {sign}" for name in around for sign in ("-", "+"))]
    names += [f"design {number}" for number in table.index[table.pareto][:_MOST_LIMITS]]
    sensitivity = _sensitivity(question, table, looked_at, figures, list(around))
    limits = pd.DataFrame(
        [
            [name, *row]
            for name, item in zip([*names, BASE], [*figures, of_base], strict=True)
            for row in item.get("limits", ())
        ],
        columns=["design", "workload", "category", "limit", "seconds"],
    )
    result = Exploration(
        question, table, sensitivity, limits, study.evaluated, _columns(question, {}, of_base)
    )
    _write(result, folder, has_page)
    return result


def _keep_to(spec: Spec, folder: Path) -> None:
    """One folder is one question's: its spec stands in spec.json, of which the number of designs and the words may change.

    Raises:
        InputError: the folder has another's results; the message names the fields that differ.
    """
    path = folder / "spec.json"
    ours = spec.model_dump(mode="json", exclude_defaults=True)
    if path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            theirs = {}
        differ = [
            field
            for field in dict.fromkeys([*ours, *theirs])
            if _of_question(ours, field) != _of_question(theirs, field)
        ]
        if differ:
            raise InputError(
                f"{folder} has the results of another spec, in which {joined(differ)} differ{'s' * (len(differ) == 1)}; give another "
                f"--out, or take it away"
            )
    write_text(path, json.dumps(ours, indent=1) + "\n")


def _of_question(spec: dict[str, Any], field: str) -> Any:
    """A field of a spec but for what only says how long to search, and how the question is worded."""
    found = spec.get(field)
    if field == "question":
        return None
    return (
        {name: value for name, value in (found or {}).items() if name != "designs"}
        if field == "search"
        else found
    )


def can_report(asked: bool | None, say: Callable[[str], None]) -> bool:
    """Whether report.html is written; that it is not, though nobody said so, is said.

    Raises:
        InputError: it is asked for, and cannot be.
    """
    if asked is False:
        return False
    from simtti.pages.page import check_available

    try:
        check_available()
    except InputError as error:
        if asked:
            raise
        say(f"no report.html: {error}")
        return False
    return True


def _with_intervals(spec: Spec, table: pd.DataFrame, looked_at: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """The table with, for each objective that is not sure, the columns NAME.p05 to NAME.p95, and `unsure`: the designs whose order with this one
    is not sure (`analysis.unsure`), with commas between. Only of the designs looked at."""
    drawn = {number: figures["draws"] for number, figures in looked_at.items()}
    columns = {f"{name}.{part}": float("nan") for name in spec.objectives for part in Interval._fields
               if any(name in draws for draws in drawn.values())}  # fmt: skip
    table = table.assign(**columns, unsure="")
    for number, draws in drawn.items():
        for name, values in draws.items():
            interval = interval_of(np.array(values), float(looked_at[number][name]))
            for part, value in interval._asdict().items():
                table.loc[number, f"{name}.{part}"] = value
    for number, others in analysis.unsure(spec, looked_at, drawn).items():
        table.loc[number, "unsure"] = ",".join(map(str, others))
    return table


def _columns(spec: Spec, values: dict[str, float], figures: dict[str, Any]) -> dict[str, Any]:
    """A row: the parameters, those of the base where the design does not change them, then the figures."""
    names = list(
        dict.fromkeys([*spec.parameters, *(name for item in spec.compare.values() for name in item)])
    )
    base = make(spec.base, {})
    parameters = {
        name: values.get(name, float(getattr(base.hardware, name, getattr(base, name, float("nan")))))
        for name in names
    }
    kept = {name: value for name, value in figures.items() if name not in ("error", "limits", "draws")}
    return {**parameters, **kept, "error": figures.get("error", "")}


def _sensitivity(
    spec: Spec,
    table: pd.DataFrame,
    points: Sequence[dict[str, float]],
    figures: Sequence[dict[str, Any]],
    parameters: Sequence[str],
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    shares = {name: analysis.importance(table, parameters, name) for name in spec.objectives}
    for number, name in enumerate(parameters):
        low, high = ({**points[i], **figures[i]} for i in (1 + 2 * number, 2 + 2 * number))
        for objective in spec.objectives:
            rows.append(
                {
                    "parameter": name,
                    "objective": objective,
                    "elasticity": analysis.elasticity(name, low, high, objective),
                    "importance": shares[objective].get(name, float("nan")),
                }
            )
    return pd.DataFrame(rows)


def _write(result: Exploration, folder: Path, report: bool) -> None:
    write_table(result.table, folder / "results.parquet")
    write_table(result.table[result.table.pareto], folder / "pareto.csv")
    write_table(result.sensitivity, folder / "sensitivity.csv")
    write_table(result.limits, folder / "limits.parquet")
    for number in result.table.index[result.table.pareto][:_MOST_FILES]:
        write_design(result, int(number), folder)
    if report:
        from simtti.explore.report import html

        write_text(folder / "report.html", html(result))


def write_design(result: Exploration, number: int, folder: Path) -> Path:
    """The device file of a design, for `simtti run --hw FILE`.

    Raises:
        InputError: no design has this number.
    """
    if not 0 <= number < len(result.table):
        raise InputError(f"there is no design {number}; they go from 0 to {len(result.table) - 1}")
    row = result.table.iloc[number]
    values = {name: float(row[name]) for name in result.spec.parameters if row[name] == row[name]}
    design = make(result.spec.base, values, name=f"design-{number}")
    question = " ".join(plain(result.spec.question).split())
    source = f"simtti explore: {question or 'design-space exploration'}"
    path = folder / "designs" / f"{number}.yaml"
    path.parent.mkdir(exist_ok=True)
    notes = f"# {source}; design {number}"
    if design.host_speed != 1 or design.gpus != 1:
        notes += f"; a host {design.host_speed:g} times as fast, {design.gpus} GPUs"
    content = device_file(result.spec.base, design, source)
    write_text(path, notes + "\n" + yaml.safe_dump(content, sort_keys=False, width=120))
    return path
