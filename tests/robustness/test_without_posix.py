"""Where there is no fcntl and no other module of POSIX alone, as on Windows: all of simtti can be imported and used."""

import json
import subprocess
import sys

WITHOUT = """
import importlib, json, sys
from importlib.abc import MetaPathFinder

POSIX = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog"}
OPTIONAL = {"torch", "diffusers", "transformers"}  # asked for when they are needed; left out here for their weight


class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in POSIX | OPTIONAL:
            raise ModuleNotFoundError(f"no module {name}", name=name)


for name in POSIX:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocked())
"""
EVERY_MODULE = """
import simtti
from pathlib import Path

root = Path(simtti.__file__).parent
failed = {}
for folder in ("", "simulator", "workloads", "hw_configs", "explore", "pages", "commands", "validation"):
    for path in sorted((root / folder).glob("**/*.py" if folder else "*.py")):
        name = ".".join(("simtti", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        if name in ("simtti.__main__",):  # which runs the command line
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            failed[name] = error.name
print(json.dumps(failed))
"""
LOCKS_AND_FILES = """
from pathlib import Path
from simtti.errors import InputError
from simtti.journal import Journal
from simtti.locks import alone
import simtti

one, other = Journal(Path("j.jsonl"), "code"), Journal(Path("j.jsonl"), "code")
assert one.claim(["a", "b"]) == ["a", "b"] and other.claim(["a", "c"]) == ["c"]
one.append("a", 1)
one.release()
other.release()
assert sorted(path.name for path in Path().iterdir() if path.name.endswith(".jsonl")) == ["j.jsonl"]
with one.alone("out.csv"):
    try:
        with other.alone("out.csv"):
            raise AssertionError("two writers")
    except InputError:
        pass
with alone(Path("lock")):
    pass
import pandas as pd
table = simtti.sweep(pd.DataFrame({"workload": ["stable-diffusion"], "hw": ["h100-sxm"], "steps": [1]}), out="out.csv", workers=1)
print(json.dumps([bool((table.latency_s > 0).all()), "fcntl" in sys.modules]))
"""


def answer(code, folder):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_module_can_be_imported(tmp_path):
    failed = answer(EVERY_MODULE, tmp_path)
    assert set(failed.values()) <= {"torch", "diffusers", "transformers"}, failed
    assert not [
        name
        for name in failed
        if not name.startswith(("simtti.workloads.", "simtti.validation.measurements."))
    ]


def test_outputs_have_one_writer_and_sweeps_run(tmp_path):
    assert answer(LOCKS_AND_FILES, tmp_path) == [True, False]
    assert (tmp_path / "out.csv").exists()


def test_nothing_names_what_windows_lacks():
    from test_architecture import MODULES

    text = {module: path.read_text() for module, path in MODULES.items()}
    assert not [
        module for module in text for name in ("fcntl", "os.fork", "os.killpg") if name in text[module]
    ]
