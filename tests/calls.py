"""The command line called in this process, for tests of many calls."""

import contextlib
import io

from simtti.cli import main


def call(*arguments):
    """`simtti ARGUMENTS`: exit code, standard output, error output."""
    out, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main.main(args=[str(each) for each in arguments])
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue(), errors.getvalue()


def refused(*arguments):
    """The one line of error of a call that must exit with 2."""
    code, _, errors = call(*arguments)
    assert code == 2, errors
    (line,) = errors.strip().splitlines()
    assert line.startswith("simtti: error: ")
    return line
