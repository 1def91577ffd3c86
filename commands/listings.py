"""What there is: `simtti workloads`, `simtti hw`, `simtti cache`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import click

from simtti.errors import unknown

if TYPE_CHECKING:
    from simtti.hw_configs.hardware import Hardware
    from simtti.workloads.workload import Workload

_Item = TypeVar("_Item")


@click.command()
@click.argument("query", nargs=-1, metavar="[NAME | WORDS]...")
@click.option("--shapes", "with_shapes", is_flag=True, help="Which other shapes run without torch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def workloads(query: tuple[str, ...], with_shapes: bool, as_json: bool) -> None:
    """List the workloads, those that WORDS describe, or all there is to know of one (NAME).

    \b
    simtti workloads video transformer     # every word, in any order
    simtti workloads measured              # of which measured traces ship
    simtti workloads --shapes              # batches, sizes and frames that need no torch
    """
    from simtti.workloads.catalogue import ALIASES, WORKLOADS
    from simtti.workloads.default_flops import default_flops
    from simtti.workloads.measured import captures
    from simtti.workloads.record import shipped_scopes

    name = " ".join(query)
    name = ALIASES.get(name, name)
    found = {name: WORKLOADS[name]} if name in WORKLOADS else _matching(WORKLOADS, query, _words_of)
    if not found:
        raise unknown("workload", name, [*WORKLOADS, *ALIASES])
    if as_json:
        listing = {
            name: {
                "task": item.task,
                "architecture": item.architecture,
                "parameters": dict(item.parameters),
                "defaults": item.defaults.given(),
                "flops": default_flops(name),
                "aliases": list(item.aliases),
                "vae": item.decoding and {"own": item.decoding.own, "modes": list(item.decoding.modes)},
                "measured": [
                    {"hw": each.device, "attention": each.attention, **each.options}
                    for each in captures()
                    if each.workload == name
                ],
                "shapes": [
                    {one.name: {"from": one.least, "to": one.most, "by": one.unit} for one in scope.variables}
                    | ({} if scope.full is None else {"tokens_filled_up": not scope.full})
                    for scope in shipped_scopes(item)
                ],
                "source": item.source,
                "url": item.url,
            }
            for name, item in found.items()
        }
        click.echo(json.dumps(listing, indent=2))
        return
    from simtti.commands.catalogues import print_shapes, print_workload, print_workloads

    if with_shapes:
        print_shapes({name: shipped_scopes(item) for name, item in found.items()})
    elif name in WORKLOADS:
        print_workload(WORKLOADS[name], captures(), default_flops(name), shipped_scopes(WORKLOADS[name]))
    else:
        print_workloads(found, captures(), {name: default_flops(name) for name in found})


@click.command(name="hw")
@click.argument("query", nargs=-1, metavar="[NAME | WORDS]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def hardware(query: tuple[str, ...], as_json: bool) -> None:
    """List the devices, those that WORDS describe, or show one (NAME or a YAML file) with the source of every number.

    \b
    simtti hw ada                          # by architecture, part of a name, or what the driver calls it
    simtti hw rtx blackwell                # every word, in any order
    """
    from simtti.commands.catalogues import print_device, print_devices
    from simtti.hw_configs import devices

    name = " ".join(query)
    if name in devices.names() or name.endswith((".yaml", ".yml")):
        devices.load(name)  # validates
        content = devices.read(name)
        if as_json:
            click.echo(json.dumps(content, indent=2))
        else:
            print_device(content)
        return
    known = {device: devices.load(device) for device in devices.names()}
    found = _matching(known, query, _words_of_device)
    if not found:
        raise unknown("device", name, known)
    if as_json:
        click.echo(json.dumps({device: each.to_dict() for device, each in found.items()}, indent=2))
    else:
        print_devices(found)


@click.command()
@click.option("--clear", is_flag=True, help="Take all of it away.")
@click.option(
    "--stale", is_flag=True, help="Take away what other versions of simtti or of torch's libraries left."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def cache(clear: bool, stale: bool, as_json: bool) -> None:
    """Show the traces that were recorded and are kept for the next time, or take them away.

    They are in $SIMTTI_CACHE, else $XDG_CACHE_HOME/simtti, else ~/.cache/simtti. What is stale is never used.

    \b
    simtti cache
    simtti cache --stale
    """
    from simtti.workloads import trace_cache

    place = trace_cache.folder()
    if clear or stale:
        count = trace_cache.clear(only_stale=not clear)
        click.echo(f"{place}: {count} traces taken away", err=True)
        return
    found = trace_cache.entries()
    if as_json:
        traces = [{**asdict(each), "path": str(each.path)} for each in found]
        click.echo(json.dumps({"folder": str(place), "traces": traces}, indent=2))
        return
    from simtti.commands.catalogues import print_cache

    print_cache(place, found)


def _matching(
    items: Mapping[str, _Item], words: Sequence[str], words_of: Callable[[_Item], Iterable[str]]
) -> dict[str, _Item]:
    """Those of whose words each of `words` is a part, whatever its case."""
    asked = [word.casefold() for word in " ".join(words).split()]
    texts = {name: " ".join(words_of(item)).casefold() for name, item in items.items()}
    return {name: item for name, item in items.items() if all(word in texts[name] for word in asked)}


def _words_of(item: Workload) -> list[str]:
    from simtti.workloads.measured import captures

    devices = [each.device for each in captures() if each.workload == item.name]
    measured = ["measured", *devices] if devices else []
    return [
        item.name,
        *item.aliases,
        item.task,
        item.architecture,
        item.defaults.dtype,
        item.group,
        *measured,
    ]


def _words_of_device(device: Hardware) -> list[str]:
    return [
        device.name,
        device.architecture,
        device.interconnect,
        device.reported_as,
        *device.also_reported_as,
    ]
