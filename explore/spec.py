"""The question an exploration answers: a YAML file with a base device, parameters, workloads, objectives, constraints."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simtti.errors import InputError, Problems, unknown
from simtti.explore import formula
from simtti.explore.design import PARAMETERS, WHOLE
from simtti.files import read_yaml
from simtti.hw_configs.devices import fingerprint, load
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.hosts import load_host
from simtti.simulator.policy import Policy
from simtti.workloads.named import check_named, content_of, is_file, label_of

EXAMPLES = Path(__file__).with_name("examples")
# objective: whether more is better, and what it is. A workload's own latency is `latency_s.NAME`.
OBJECTIVES: dict[str, tuple[bool, str]] = {
    "latency_s": (False, "seconds for the mix: each workload's latency times its weight, added up"),
    "throughput_per_s": (True, "images or videos of the mix a second, one inference after another"),
    "energy_j": (False, "energy for the mix"),
    "energy_j_per_output": (False, "energy of one image or video of the mix, or of a second of video"),
    "power_w": (False, "mean board power over the workload that draws most"),
    "area_mm2": (False, "area of all dies"),
    "die_mm2": (False, "area of one die; what a mask can hold is 858 mm2"),
    "cost_usd": (False, "manufacturing cost of dies, memory and package"),
    "peak_memory_bytes": (False, "memory of the workload that needs most"),
    "perf_per_w": (True, "throughput over power"),
    "perf_per_mm2": (True, "throughput over area"),
    "perf_per_usd": (True, "throughput over cost"),
}
_STRICT = ConfigDict(extra="forbid", frozen=True)
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class Parameter(BaseModel):
    """A parameter's values: a list, a range, or a formula over the others."""

    model_config = _STRICT
    values: Annotated[list[_Finite], Field(min_length=1)] | None = None
    low: _Finite | None = None
    high: _Finite | None = None
    steps: Annotated[int, Field(ge=2, le=10_000)] | None = None
    scale: Literal["linear", "log"] = "linear"
    formula: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Parameter:
        ranged = self.low is not None or self.high is not None
        if (self.values is not None) + ranged + (self.formula is not None) != 1:
            raise ValueError("give one of: values, low with high, formula")
        if ranged:
            if self.low is None or self.high is None or not self.low < self.high:
                raise ValueError(f"low {self.low} must be below high {self.high}")
            if self.scale == "log" and self.low <= 0:
                raise ValueError(f"low {self.low} must be above 0 for scale log")
        return self

    def at(self, share: float) -> float:
        """The value that stands at `share`, from 0 to 1, of the range or list."""
        if self.values is not None:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        assert self.low is not None
        assert self.high is not None
        if self.steps is not None:
            share = min(int(share * self.steps), self.steps - 1) / (self.steps - 1)
        if self.scale == "log":
            return self.low * (self.high / self.low) ** share
        return self.low + (self.high - self.low) * share

    @property
    def grid(self) -> list[float] | None:
        """All its values; None for a range without steps."""
        if self.values is not None:
            return self.values
        if self.steps is None:
            return None
        return [self.at((step + 0.5) / self.steps) for step in range(self.steps)]


class Workload(BaseModel):
    """An inference of the mix, with options of `simtti run`; weight: how many of it the mix has."""

    model_config = _STRICT
    workload: str
    name: str = ""
    weight: _Positive = 1.0
    batch: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    dtype: str | None = None
    attention: str = "flash"
    launch: str = "eager"
    host: str = "default"
    frames_per_second: _Positive | None = None  # of the video: counts outputs in seconds of it

    @property
    def label(self) -> str:
        return self.name or label_of(self.workload)


class Constraint(BaseModel):
    """Bounds on a figure."""

    model_config = _STRICT
    min: _Finite | None = None
    max: _Finite | None = None


class Search(BaseModel):
    """How designs are proposed."""

    model_config = _STRICT
    method: Literal["grid", "sobol", "nsga2", "one-at-a-time"] = "grid"
    designs: Annotated[int, Field(ge=1, le=10_000_000)] = 256
    population: Annotated[int, Field(ge=2, le=10_000)] = 32
    seed: Annotated[int, Field(ge=0)] = 0


class Spec(BaseModel):
    """A whole specification."""

    model_config = _STRICT
    question: str = ""
    base: str
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    workloads: Annotated[list[Workload], Field(min_length=1)]
    objectives: Annotated[list[str], Field(min_length=1)]
    constraints: dict[str, Constraint] = {}
    fits_memory: bool = True  # a design whose memory is too small is not feasible
    search: Search = Search()
    compare: dict[str, dict[str, _Finite]] = {}  # designs of their own, by name: always evaluated, first

    @property
    def free(self) -> dict[str, Parameter]:
        """The parameters that the search chooses."""
        return {name: item for name, item in self.parameters.items() if item.formula is None}

    @property
    def varied(self) -> list[str]:
        """Those of them that have more than one value."""
        return [name for name, item in self.free.items() if item.values is None or len(set(item.values)) > 1]

    def complete(self, chosen: dict[str, float]) -> dict[str, float]:
        """Chosen values, whole where they must be, with those of the formulas added. What is not chosen is the base's.

        Raises:
            InputError: a formula has no value for them.
        """
        values = {name: _whole(name, value) for name, value in chosen.items()}
        of_base = base_numbers(load(self.base))
        defaults = {name: of_base.get(f"base.{name}", 1.0) for name in self.free}
        numbers = {**of_base, **defaults, **values}
        for name in _ordered(self.parameters):
            text = self.parameters[name].formula
            if text is not None and name not in values:
                values[name] = numbers[name] = _whole(name, formula.evaluate(text, numbers))
        return values

    def identity(self) -> str:
        """The same for specs that ask for the same evaluations: the workloads, the base device and the hosts, by what their files
        say."""
        hosts = {each.host: repr(load_host(each.host)) for each in self.workloads}
        files = {
            each.workload: content_of(each.workload) for each in self.workloads if is_file(each.workload)
        }
        content = self.model_dump(include={"base", "workloads"}) | ({"files": files} if files else {})
        return json.dumps({**content, "device": fingerprint(load(self.base)), "hosts": hosts}, sort_keys=True)


def base_numbers(hardware: Hardware) -> dict[str, float]:
    """`base.NAME` of every number of the base device."""
    return {f"base.{name}": float(getattr(hardware, name)) for name in PARAMETERS if hasattr(hardware, name)}


def _whole(name: str, value: float) -> float:
    return float(round(value)) if name in WHOLE else float(value)


def _ordered(parameters: dict[str, Parameter]) -> list[str]:
    """Formulas after what they use.

    Raises:
        InputError: formulas that use each other in a circle.
    """
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise InputError(f"formulas use each other in a circle: {' -> '.join((*above, name))}")
        if name in order or name not in parameters:
            return
        text = parameters[name].formula
        for used in sorted(formula.names(text)) if text is not None else ():
            visit(used, (*above, name))
        order.append(name)

    for name in parameters:
        visit(name, ())
    return order


def read(name_or_path: str | os.PathLike[str]) -> Spec:
    """The spec in a YAML file, or the shipped example of that name.

    Raises:
        InputError: one line that names the file, the field, the value and what is allowed.
    """
    path = EXAMPLES / f"{name_or_path}.yaml"
    if not os.path.exists(path):
        path = Path(name_or_path)
    if not os.path.exists(path):
        examples = [item.stem for item in EXAMPLES.glob("*.yaml")]
        if path.suffix in (".yaml", ".yml"):
            raise InputError(f"{path}: no such spec file; shipped examples: {', '.join(sorted(examples))}")
        raise unknown("example spec", str(name_or_path), examples)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: a spec is a mapping of fields, not {type(content).__name__}")
    try:
        return parse(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse(content: dict[str, Any]) -> Spec:
    """A validated spec.

    Raises:
        InputError: as `read`, without the file.
    """
    problems, spec = Problems(), None
    content = _numbers(content)
    try:
        spec = Spec.model_validate(content)
    except ValidationError as error:
        _note(error, problems)
    _check_names(content, problems)
    if spec is not None and not problems:
        _check(spec, problems)
    problems.raise_any()
    assert spec is not None
    return spec


def _numbers(content: Any) -> Any:
    """YAML 1.1 reads 1e9 as text; here it is the number that was meant."""
    if isinstance(content, dict):
        return {key: _numbers(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_numbers(value) for value in content]
    if isinstance(content, str) and content[:1].isdigit() and "e" in content.lower():
        try:
            number = float(content)
        except ValueError:
            return content
        return number if math.isfinite(number) else content
    return content


def _check_names(content: dict[str, Any], problems: Problems) -> None:
    """Names that must exist, in a spec as it stands, whose fields may have any type: of those that have another, the schema tells."""
    if isinstance(base := content.get("base"), str):
        with problems.noted():
            load(base)
    labels: list[str] = []
    for workload in filter(_is_mapping, _list_of(content, "workloads")):
        if isinstance(named := workload.get("workload"), str):
            with problems.noted():
                check_named(named)
            labels.append(str(workload.get("name") or label_of(named)))
        if isinstance(host := workload.get("host"), str):
            with problems.noted():
                load_host(host)
        policy = {
            name: workload[name] for name in ("attention", "launch") if isinstance(workload.get(name), str)
        }
        with problems.noted():
            Policy(**policy)
    figures = [*OBJECTIVES, *(f"latency_s.{label}" for label in labels)]
    objectives = _list_of(content, "objectives")
    for place, names in (("objective", objectives), ("constraint", _mapping_of(content, "constraints"))):
        for name in names:
            if name not in figures:
                problems.note(str(unknown(place, str(name), figures)))
    for name in _repeated(objectives):
        problems.note(f"field 'objectives': {name!r} stands there twice")
    for name in _repeated(labels):
        problems.note(f"field 'workloads': two are called {name!r}; give one another 'name'")
    for name in _mapping_of(content, "parameters"):
        if name not in PARAMETERS:
            problems.note(str(unknown("parameter", str(name), PARAMETERS)))
    for design, values in _mapping_of(content, "compare").items():
        for name in values if _is_mapping(values) else ():
            if name not in PARAMETERS:
                problems.note(str(unknown(f"parameter of compare.{design}", str(name), PARAMETERS)))


def _repeated(names: list[Any]) -> list[str]:
    counts = Counter(map(str, names))
    return [name for name, count in counts.items() if count > 1]


def _is_mapping(found: Any) -> bool:
    return isinstance(found, dict)


def _mapping_of(content: dict[str, Any], field: str) -> dict[str, Any]:
    found = content.get(field)
    return found if isinstance(found, dict) else {}


def _list_of(content: dict[str, Any], field: str) -> list[Any]:
    found = content.get(field)
    return found if isinstance(found, list) else []


def _check(spec: Spec, problems: Problems) -> None:
    """What a spec whose names exist may still have wrong: formulas, a grid's steps, bounds."""
    base = load(spec.base)
    known = set(PARAMETERS) | {f"base.{name}" for name in PARAMETERS if hasattr(base, name)}
    for name, item in spec.parameters.items():
        used: tuple[str, ...] = ()
        if item.formula is not None:
            with problems.noted():
                used = tuple(formula.names(item.formula))
        for each in used:
            if each not in known or (each in PARAMETERS and each not in spec.parameters):
                problems.note(
                    f"field 'parameters.{name}.formula': {each!r} is not a parameter of this spec or base.NAME"
                )
        if spec.search.method in ("grid", "one-at-a-time") and item.formula is None and item.grid is None:
            problems.note(
                f"field 'parameters.{name}.steps' is missing; a {spec.search.method} search needs it"
            )
    if not spec.free:
        problems.note("field 'parameters': all are formulas; give one of them values")
    from simtti.explore.design import make

    for name, item in spec.free.items():
        for value in item.values or ():
            with problems.noted():
                make(spec.base, {name: _whole(name, value)})
    for values in spec.compare.values():
        with problems.noted():
            make(spec.base, values)
    if problems:
        return
    for share in (0.0, 1.0):  # the corners lie within a device's bounds
        with problems.noted():
            make(spec.base, spec.complete({name: item.at(share) for name, item in spec.free.items()}))


def _note(error: ValidationError, problems: Problems) -> None:
    """The faults: field, what is wrong, the value given, near field names for a typo."""
    models = (Spec, Parameter, Workload, Search, Constraint)
    known = [field for model in models for field in model.model_fields]
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
            problems.note(f"unknown field {field!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif fault["type"] == "missing":
            problems.note(f"field {field!r} is missing")
        else:
            given = "" if isinstance(fault["input"], dict | list) else f", not {fault['input']!r}"
            message = fault["msg"].removeprefix("Value error, ")
            problems.note(f"field {field!r}: {message[:1].lower()}{message[1:]}{given}")
