"""What there is: `simtti workloads`, `simtti hw`."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def workloads(as_json: bool) -> None:
    """List the workloads: task, architecture, parameters, default shape, source."""
    from simtti.workloads.catalogue import ALIASES, WORKLOADS
    from simtti.workloads.measured import captures

    if as_json:
        listing = {
            name: {
                "task": item.task,
                "architecture": item.architecture,
                "parameters": dict(item.parameters),
                "defaults": item.defaults.given(),
                "aliases": [alias for alias, of in ALIASES.items() if of == name],
                "measured": [
                    {"hw": each.device, "attention": each.attention, **each.options}
                    for each in captures()
                    if each.workload == name
                ],
                "source": item.source,
                "url": item.url,
            }
            for name, item in WORKLOADS.items()
        }
        click.echo(json.dumps(listing, indent=2))
        return
    from simtti.commands.terminal import print_workloads

    print_workloads(WORKLOADS, ALIASES, captures())


@click.command(name="hw")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def hardware(name: str | None, as_json: bool) -> None:
    """List the devices, or show one (NAME or a YAML file) with the source of every number."""
    from simtti.commands.terminal import print_device, print_devices
    from simtti.hw_configs import devices

    if name is not None:
        devices.load(name)  # validates
        content = devices.read(name)
        if as_json:
            click.echo(json.dumps(content, indent=2))
        else:
            print_device(content)
        return
    known = {device: devices.load(device) for device in devices.names()}
    if as_json:
        click.echo(json.dumps({device: found.to_dict() for device, found in known.items()}, indent=2))
    else:
        print_devices(known)
