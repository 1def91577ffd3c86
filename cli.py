"""The command line: one thin click command per verb of the Python API, from `commands`, and what an error becomes."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# numpy comes with OpenBLAS, whose threads cost half of its import and have nothing to do here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

try:
    import click

    from simtti.commands.group import Group
    from simtti.errors import InputError
    from simtti.words import plain
except KeyboardInterrupt:  # while Python still loads
    sys.stderr.write("simtti: error: interrupted before anything was begun\n")
    sys.exit(2)


# Where each command stands: its module of `commands`, and its name there.
_PLACES = {
    "run": ("simulate", "run"),
    "predict": ("simulate", "predict"),
    "sweep": ("simulate", "sweep"),
    "compare": ("simulate", "compare"),
    "advise": ("answers", "advise"),
    "costs": ("answers", "costs"),
    "diff": ("answers", "diff"),
    "explore": ("simulate", "explore"),
    "record": ("traces", "record"),
    "capture": ("traces", "capture"),
    "profile": ("traces", "profile"),
    "import": ("exchange", "import_"),
    "export": ("exchange", "export"),
    "calibrate": ("measurements", "calibrate"),
    "scoreboard": ("scoreboard", "scoreboard"),
    "validate": ("measurements", "validate"),
    "workloads": ("listings", "workloads"),
    "hw": ("listings", "hardware"),
    "cache": ("listings", "cache"),
}


class _Commands(Mapping[str, click.Command]):
    """All commands by name. A command's module is imported when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        module, attribute = _PLACES[name]
        found = getattr(importlib.import_module(f"simtti.commands.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


class _Group(Group):
    """Turns an InputError, a full disk or an interrupt of any command into one line and exit code 2, and any other exception, which is
    a bug, into a request to report it and exit code 70 (EX_SOFTWARE); its traceback with --debug, which stands anywhere."""

    def main(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        given = extra.pop("args", args[0] if args else None)
        words = list(sys.argv[1:] if given is None else given)
        debug = "--debug" in words
        extra["args"] = [word for word in words if word != "--debug"] or ["--help"]
        _print_what_can_be()
        try:
            with _ended_by_signals():
                return super().main(*args[1:], **extra)
        except InputError as error:
            _fail(str(error))
        except click.exceptions.Exit as stop:
            sys.exit(stop.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _fail(_interrupted())
        except click.ClickException as error:
            _fail(" ".join(error.format_message().split()))
        except BrokenPipeError:
            sys.stderr.close()  # the reader went away (| head): nothing to say, and nobody to say it to
            sys.exit(0)
        except OSError as error:
            _fail(f"{error.filename or 'output'}: {error.strerror or error}")
        except MemoryError:
            _fail("the memory is not enough for this")
        except Exception as error:
            if debug:
                traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            click.echo(
                f"simtti: internal error: {plain(reason)[:500]}; this is a bug in simtti, not a mistake of yours: please report it with the "
                "command and what --debug adds",
                err=True,
            )
            sys.exit(70)


def _print_what_can_be() -> None:
    """Where the locale's encoding lacks a character, as under LC_ALL=C, a question mark stands for it on the terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() not in ("utf-8", "utf8"):
        sys.stdout.reconfigure(errors="replace")


def _interrupted() -> str:
    from simtti.journal import Journal

    if Journal.interrupted is None or not Journal.interrupted.exists():
        return (
            "interrupted; no journal was begun: what is already in a file of its own is kept, the rest is not"
        )
    return f"interrupted; what was finished is kept in {Journal.interrupted}, and the same command goes on from there"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: workers with it, and what is kept is told."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    for name in names:
        if before[name] == signal.SIG_DFL:  # nohup has SIGHUP ignored: that stays
            signal.signal(getattr(signal, name), interrupt)
    try:
        yield
    finally:
        for name in names:
            signal.signal(getattr(signal, name), before[name])


def _fail(message: str) -> None:
    click.echo(f"simtti: error: {plain(message)}", err=True)
    sys.exit(2)


@click.group(
    cls=_Group,
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="simtti")
def main() -> None:
    """How fast a GPU, or a chip that does not exist yet, runs text-to-image and text-to-video inference.

    \b
    simtti run stable-diffusion --hw h100-sxm             where its time goes
    simtti run sdxl --hw a100-sxm --timeline sdxl.json    for ui.perfetto.dev
    simtti sweep points.csv --out results.csv             many runs
    simtti predict kernels.csv --hw h200-sxm --out t.csv  single operators
    """


if __name__ == "__main__":
    main()
