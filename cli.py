"""The command line: one thin click command per verb of the Python API, from `commands`, and what an error becomes."""

from __future__ import annotations

import sys
from typing import Any

import click

from simtti.commands import exchange, listings, measurements, simulate, traces
from simtti.errors import InputError
from simtti.words import plain


class _Group(click.Group):
    """Turns an InputError, a full disk or Ctrl-C of any command into one line and exit code 2."""

    def main(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        try:
            return super().main(*args, **extra)
        except InputError as error:
            _fail(str(error))
        except click.exceptions.Exit as stop:
            sys.exit(stop.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _fail("interrupted; finished work is kept, the same command goes on from there")
        except click.ClickException as error:
            _fail(" ".join(error.format_message().split()))
        except BrokenPipeError:
            sys.stderr.close()  # the reader went away (| head): nothing to say, and nobody to say it to
            sys.exit(0)
        except OSError as error:
            _fail(f"{error.filename or 'output'}: {error.strerror or error}")


def _fail(message: str) -> None:
    click.echo(f"simtti: error: {plain(message)}", err=True)
    sys.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="simtti")
def main() -> None:
    """How fast a GPU, or a chip that does not exist yet, runs text-to-image and text-to-video inference.

    \b
    simtti run stable-diffusion --hw h100-sxm             one inference, with its breakdown
    simtti run sdxl --hw a100-sxm --timeline sdxl.json    open the file in ui.perfetto.dev
    simtti sweep points.csv --out results.csv             many runs
    simtti predict kernels.csv --hw h200-sxm --out t.csv  single operators
    """


for _command in (
    simulate.run,
    simulate.predict,
    simulate.sweep,
    simulate.compare,
    simulate.explore,
    traces.record,
    traces.capture,
    traces.profile,
    exchange.import_,
    exchange.export,
    measurements.calibrate,
    measurements.validate,
    listings.workloads,
    listings.hardware,
):
    main.add_command(_command)


if __name__ == "__main__":
    main()
