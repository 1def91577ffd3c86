"""The reference, as Markdown pages made from what the program itself reads: commands, functions, keys of files, numbers with their sources."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import click

import simtti
from simtti.cli import main
from simtti.explore import formula, spec
from simtti.explore.design import OTHERS, OTHERS_BOUNDS
from simtti.files import read_yaml
from simtti.hw_configs import devices, engines, families, hosts, prices, schema, stated
from simtti.hw_configs.parameters import GROUPS
from simtti.hw_configs.quantities import unit_of

# What the end of a name says, where hw_configs.quantities has no prefix for it; the longest ending first.
_UNITS = (
    ("_flops_per_cycle_sm", "FLOP/cycle/SM"), ("_ops_per_cycle_sm", "op/cycle/SM"), ("_bytes_per_cycle_sm", "B/cycle/SM"),
    ("_flops_per_cycle", "FLOP/cycle"), ("_bytes_per_cycle", "B/cycle"), ("_j_per_flop", "J/FLOP"), ("_j_per_byte", "J/B"),
    ("_j_per_op", "J/op"), ("_cycles", "cycles"), ("_slots", "issue slots"), ("_usd_per_gpu_hour", "USD"),
)  # fmt: skip
_GROUPS_OF_FUNCTIONS = {
    "Verbs": ("run", "sweep", "compare", "explore", "advise", "predict", "calibrate", "validate"),
    "Workloads": ("record", "record_pipeline", "capture", "import_trace", "profile", "register"),
    "Devices": ("load",),
    "Results": ("report", "plot"),
    "What they take and give": ("Result", "Hardware", "Trace", "InputError"),
}


def pages() -> dict[str, str]:
    """Every page of the reference, by its URI."""
    return {
        "reference/cli.md": _commands(),
        "reference/python.md": _functions(),
        "reference/devices.md": _device_files(),
        "reference/parameters.md": _parameters(),
        "reference/machines.md": _machines(),
        "reference/explore.md": _explore(),
        **{f"reference/devices/{name}.md": _device(name) for name in devices.names()},
    }


def unit(field: str) -> str:
    """The unit of a number by the end of its name; '' for a bare number.

    >>> unit("setup_cycles"), unit("launch_s"), unit("sm_count")
    ('cycles', 's', '')
    """
    return next((said for ending, said in _UNITS if f"_{field}".endswith(ending)), "") or unit_of(f"_{field}")


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table of Markdown; what a cell holds is text, but for what stands between backticks."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = _number(value) if isinstance(value, float) else "" if value is None else str(value)
    text = " ".join(text.split()).replace("|", "\\|")
    if text.startswith("["):
        return text  # a link
    return "`".join(part if at % 2 else _escaped(part) for at, part in enumerate(text.split("`")))


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _number(value: float) -> str:
    """In full where that is short.

    >>> _number(65536.0), _number(1.5e-6), _number(3.35e12)
    ('65,536', '1.5e-06', '3.35e+12')
    """
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e9 else f"{value:.8g}"


def _code(name: str) -> str:
    return f"`{name}`"


_COMMANDS = """# Command line

`simtti COMMAND --help` prints the same. Exit codes: 0; 1 where a sweep's row has no result or nothing keeps the limits of `advise`; 2 for
what a user can mend, with one line that says what; 70 for a bug of simtti's, with its traceback under `--debug`.
"""


def _commands() -> str:
    parts = [_COMMANDS]
    for name, command in sorted(main.commands.items()):
        parts += _command(
            click.Context(command, info_name=name, parent=click.Context(main, info_name="simtti")), 2
        )
    return "\n".join(parts)


def _command(context: click.Context, level: int) -> list[str]:
    """A command and those below it: what its --help says."""
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"{'#' * level} {context.command_path}\n", f"```\n{usage}\n```\n", _help(command.help or "")]
    rows = [
        _option(each, context)
        for each in command.params
        if isinstance(each, click.Option) and not each.hidden
    ]
    if rows:
        parts.append(table(("Option", "Is", "What it does", "Default"), rows))
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            parts += _command(click.Context(below, info_name=name, parent=context), level + 1)
    return parts


def _help(text: str) -> str:
    """Paragraphs; one that click leaves as it is, behind a line of \\b, is a block of code."""
    parts = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        mark, _, rest = paragraph.partition("\n")
        parts.append(f"```\n{rest}\n```" if mark.strip() == "\b" else _cell(paragraph))
    return "\n\n".join(parts) + "\n"


def _option(option: click.Option, context: click.Context) -> tuple[str, str, str, str]:
    said = option.to_info_dict()
    kind = (
        ", ".join(said["type"]["choices"])
        if "choices" in said["type"]
        else ""
        if option.is_flag
        else option.make_metavar(context)
    )
    default = said["default"] if option.show_default and not option.is_flag else None
    needed = "needed" if option.required else "" if default is None else str(default)
    spelled = ", ".join(option.opts) + "".join(f" / {each}" for each in option.secondary_opts)
    return _code(spelled), kind.lower(), option.help or "", needed


def _functions() -> str:
    """A section a group; a public name that stands in no group is one of the last."""
    known = {name for names in _GROUPS_OF_FUNCTIONS.values() for name in names}
    groups = {**_GROUPS_OF_FUNCTIONS, "Others": tuple(name for name in simtti.__all__ if name not in known)}
    text = [
        "# Python",
        "Numbers are in the units that their names end with: `_s` seconds, `_j` joules, `_w` watts, `_bytes`, `_hz`.",
    ]
    for group, names in groups.items():
        here = [name for name in names if name in simtti.__all__]
        if here:
            text += [
                f"## {group}",
                *(f"::: simtti.{name}\n    options:\n      heading_level: 3" for name in here),
            ]
    return "\n\n".join(text) + "\n"


_DEVICE_FILE = """# Device files

A device is a YAML file: `--hw NAME` of those that ship, or `--hw path/to/mine.yaml`. It states every field, or has a `base:` and states
what differs. A field is a number in the unit below, text with a unit (`100 MB`, `3.35 TB/s`), `1.5x` of the base's, or `{value, source}`;
those under `calibration` have a `status` as well: `fitted` (by measurements), `carried` (from another device's) or `estimated`.

```yaml
base: h100-sxm
name: mine
datasheet:
  hbm_bytes_per_s: {value: 6 TB/s, source: "a plan"}
  l2_capacity_bytes: 1.5x
calibration:
  launch_s: 0.8e-6
```

"""


def _device_files() -> str:
    listed = {name: devices.load(name) for name in devices.names()}
    return "\n".join(
        [
            _DEVICE_FILE,
            "## Head\n",
            _keys(stated._Device),
            "## `datasheet`\n",
            _fields(schema.DATASHEET),
            f"0 where a file does not say: {', '.join(map(_code, schema.OPTIONAL_DATASHEET))}.\n",
            "## `calibration`\n",
            _fields(schema.DEVICE_CALIBRATION),
            "and every [parameter of the kernels](parameters.md), as `group.name`.\n",
            "## Those that ship\n",
            table(
                ("Device", "Architecture", "SMs", "GHz", "HBM, TB/s", "Board, W"),
                (
                    (f"[{name}](devices/{name}.md)", each.architecture, each.sm_count, f"{each.clock_hz / 1e9:.2f}",
                     f"{each.hbm_bytes_per_s / 1e12:.2f}", each.power_limit_w)
                    for name, each in listed.items()
                ),
            ),
        ]
    )  # fmt: skip


def _fields(known: Mapping[str, tuple[type, float, float, str]]) -> str:
    rows = (
        (_code(name), unit(name), float(low), float(high), meaning)
        for name, (_, low, high, meaning) in known.items()
    )
    return table(("Field", "Unit", "Least", "Most", "What it is"), rows)


def _device(name: str) -> str:
    """All that a device's files say but for the kernels' parameters that all devices share."""
    content = devices.read(name)
    shared = families.shared()
    own = {
        field: entry
        for field, entry in content["calibration"].items()
        if field in schema.DEVICE_CALIBRATION or entry != shared.calibration.get(field)
    }
    text = [
        f"# {name}\n",
        f"{content['architecture']}; attention {content['attention_kernel']}; kernels of PyTorch "
        f"{devices.load(name).pytorch}. What the files of the device and of its bases state; the kernels' parameters that are not here are "
        "those that [all devices share](../parameters.md).\n",
    ]
    for section, entries in (("datasheet", content["datasheet"]), ("calibration", own)):
        rows = ((_code(field), float(entry["value"]), unit(field.rpartition(".")[2]), entry.get("status", ""), entry["source"])
                for field, entry in entries.items())  # fmt: skip
        text += [f"## {section.capitalize()}\n", table(("Field", "Value", "Unit", "Status", "Source"), rows)]
    return "\n".join(text)


def _parameters() -> str:
    shared = families.shared()
    text = [
        "# Kernel parameters\n",
        "Every number of the kernel families that was fitted or judged, with the value that holds on devices whose file says nothing else. "
        "A group without values states those in which it differs from the one it inherits from. A file's `calibration:` and `--set` take "
        "them as `group.name`. `simtti calibrate` moves them within least and most.\n",
    ]
    for name in sorted(GROUPS):
        group = GROUPS[name]
        inherits = f" Inherits from `{group.inherits}`." if group.inherits else ""
        said = " ".join((group.style.__doc__ or "").split())
        text.append(
            f"## `{name}`\n\n{'' if said.startswith(group.style.__name__ + '(') else said}{inherits}\n"
        )
        rows = []
        for field in group.style._fields:  # type: ignore[attr-defined]
            bounds, entry = shared.bounds[f"{name}.{field}"], shared.calibration.get(f"{name}.{field}", {})
            rows.append((_code(field), entry.get("value"), unit(field), bounds.low, bounds.high, bounds.meaning,
                         entry.get("status"), entry.get("source")))  # fmt: skip
        text.append(
            table(("Parameter", "Value", "Unit", "Least", "Most", "What it is", "Status", "Source"), rows)
        )
    return "\n".join(text)


def _machines() -> str:
    known, folder = hosts.hosts(), devices.DIRECTORY
    host_rows = (
        [_code(field), *(getattr(host, field) for host in known.values())]
        for field in (*hosts.COSTS, "queue_depth")
    )
    engine_rows = (
        (
            _code(name),
            ", ".join(f"{library} ({where})" for where, library in each.attention),
            each.launch,
            each.pytorch,
            each.traced,
        )
        for name, each in engines.engines().items()
    )
    shipped = read_yaml(prices.SHIPPED)
    return "\n".join(
        [
            "# Hosts, engines, prices\n",
            "## Hosts\n",
            f"`--host`, from `hw_configs/hosts.yaml`: {hosts.Host.__doc__.splitlines()[0].lower()} `simtti capture host` measures one.\n",
            table(("Cost", *known), host_rows),
            _meanings(hosts.Host.__doc__),
            _sources(read_yaml(folder / "hosts.yaml")),
            "## Engines\n",
            "`--engine`, from `hw_configs/engines.yaml`: what each decides where an option does not.\n",
            table(("Engine", "Attention", "Launch", "PyTorch", "Looked at operator by operator"), engine_rows),
            _sources(read_yaml(folder / "engines.yaml")),
            "## Prices\n",
            "`hw_configs/prices.yaml`, for the costs of `simtti compare` and `simtti advise`; `--prices` takes a file like it. "
            "They move by the month; most were not looked up, as their sources say.\n",
            table(("Device", "USD a GPU-hour", "Source", "Of"),
                  ((_code(name), each["usd_per_gpu_hour"], each["source"], each["date"]) for name, each in shipped.items())),
        ]
    )  # fmt: skip


def _meanings(doc: str | None) -> str:
    """The lines of a docstring that have a name and, three or more spaces apart or in a column, what it means."""
    rows = []
    for line in (doc or "").splitlines():
        name, _, meaning = line.strip().partition(" ")
        if name.endswith(("_s", "_depth")) and meaning:
            rows.append((_code(name), unit(name), meaning))
    return table(("Field", "Unit", "What it is"), rows)


def _sources(content: Mapping[str, Mapping[str, Any]]) -> str:
    return "".join(f"- `{name}`: {' '.join(str(each['source']).split())}\n" for name, each in content.items())


def _explore() -> str:
    text = [
        "# Specifications of `simtti explore`\n",
        "A YAML file; [explore](../explore.md) says how to ask. Shipped examples: "
        f"{', '.join(_code(path.stem) for path in sorted(spec.EXAMPLES.glob('*.yaml')))}.\n",
    ]
    for title, model in (
        ("", spec.Spec), ("`parameters.NAME`", spec.Parameter), ("`workloads`, each", spec.Workload),
        ("`constraints.NAME`", spec.Constraint), ("`search`", spec.Search),
    ):  # fmt: skip
        text += [f"## {title or 'Keys'}\n", _keys(model)]
    text += [
        "## Objectives and figures that may be constrained\n",
        table(("Figure", "Better", "What it is"),
              ((_code(name), "more" if more else "less", said) for name, (more, said) in spec.OBJECTIVES.items())),
        "## Parameters\n",
        "Every field of `datasheet` and `calibration` of a [device file](devices.md), and\n\n"
        + table(("Parameter", "Least", "Most", "What it is"),
                ((_code(name), float(OTHERS_BOUNDS[name][0]), float(OTHERS_BOUNDS[name][1]), said) for name, said in OTHERS.items())),
        "## Formulas\n",
        f"Arithmetic over the other parameters, `base.NAME` for the base's, and {', '.join(map(_code, formula.FUNCTIONS))}.\n",
    ]  # fmt: skip
    return "\n".join(text)


def _keys(model: Any) -> str:
    """A row a key of a pydantic model: its type, bounds and default."""
    found = model.model_json_schema()
    required = found.get("required", ())
    rows = []
    for name, said in found["properties"].items():
        default = "none" if said.get("default", "") is None else str(said.get("default", "")) or "''"
        rows.append((_code(name), _type(said), "needed" if name in required else default))
    return table(("Key", "Is", "Default"), rows)


def _type(said: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in said:
        return " or ".join(_type(each) for each in said["anyOf"] if each.get("type") != "null")
    if "enum" in said:
        return "one of " + ", ".join(str(each) or "''" for each in said["enum"])
    if "$ref" in said:
        return "a mapping"
    kind = said.get("type")
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true or false",
        "object": "a mapping",
    }
    if kind == "array":
        return f"list, each {_type(said['items'])}" if "items" in said else "list"
    bounds = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}"}
    limits = [text.format(f"{said[key]:,}") for key, text in bounds.items() if key in said]
    return " ".join([words.get(str(kind), str(kind)), *limits])
