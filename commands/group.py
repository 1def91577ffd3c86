"""A group of commands whose help says each command's first sentence in full."""

from __future__ import annotations

import click

_ALL = 300  # characters: more than any first sentence has


class Group(click.Group):
    """click cuts what does not fit beside the name; here it goes on in the next line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, command.get_short_help_str(_ALL))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
