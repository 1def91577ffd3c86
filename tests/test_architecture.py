"""How the building stands: arrows point down, there are no circles, files are short, tests lie beside what they test."""

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "simtti"
# What the simulator stands on, and what may stand on it.
BELOW = (
    "simulator",
    "workloads",
    "hw_configs",
    "errors",
    "files",
    "jobs",
    "journal",
    "locks",
    "words",
    "dtypes",
)
ABOVE = ("explore", "validation", "pages", "commands", "cli")
MOST_LINES = 450
# Folders of the repository that hold no module of the package.
_OTHERS = ("tests", "benchmarks", "docs", "build", "shared")


def sources(folder: Path) -> list[Path]:
    """The .py files under a folder of the repository, but for what hides (.venv)."""
    return sorted(
        path
        for path in folder.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    )


def package_files() -> list[Path]:
    return [path for path in sources(ROOT) if path.relative_to(ROOT).parts[0] not in _OTHERS]


def module_of(path: Path) -> str:
    """'simulator.kernel' for simulator/kernel.py, 'simulator' for simulator/__init__.py, '' for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in package_files()}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every import of a file from the package, in functions and under TYPE_CHECKING as well: (module, its line)."""
    text = path.read_text()
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are written out from {PACKAGE}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE and (found := _module(name)) is not None:
                yield found, lines[node.lineno - 1]


def _module(dotted: str) -> str | None:
    """The module that 'simtti.simulator.kernel.Kernel' is in, None for the package's own table of contents."""
    parts = dotted.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or None


def graph() -> dict[str, set[str]]:
    """Which module imports which, but for imports whose line says that and why it makes a circle. An import runs the
    __init__ of the folders above as well, of which those that import nothing make no circle."""
    found: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if name:  # the table of contents imports what is public, when it is asked for
            found[name] = {other for other, line in imports(path) if "# circle: " not in line} - {name}
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected modules, in groups of more than one (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(edges.get(module, ())):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = []
            while not group or group[-1] != module:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(edges):
        if module not in index:
            visit(module)
    return found


def test_nothing_below_imports_what_stands_on_it():
    wrong = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        if name.split(".")[0] in BELOW
        for other, _ in imports(path)
        if other.split(".")[0] in ABOVE
    ]
    assert not wrong


def test_the_shared_modules_at_the_top_import_no_folder():
    """So that everything may use them."""
    for name in ("errors", "files", "jobs", "locks", "words", "dtypes"):
        if name in MODULES:
            assert {other for other, _ in imports(MODULES[name])} <= {"errors", "dtypes"}, name


def test_no_modules_import_each_other_in_a_circle():
    assert not circles(graph()), "untie them, or say why with '# circle: why' behind an import"


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_folder_of_modules_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    folders = {path.parent.relative_to(ROOT) for path in package_files()}
    assert listed == {".".join((PACKAGE, *folder.parts)) for folder in folders}


def test_processes_are_started_in_one_place():
    """`jobs` alone, so that Ctrl-C, a worker's death and a full disk are the same everywhere."""
    for name, path in MODULES.items():
        if name != "jobs":
            assert "ProcessPoolExecutor" not in path.read_text(), name


def test_no_file_is_too_long_to_read():
    long = {
        str(path.relative_to(ROOT)): count
        for path in [*package_files(), *sources(ROOT / "tests")]
        if (count := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert not long, f"over {MOST_LINES} lines: {long}"


def test_a_test_lies_beside_what_it_tests():
    folders = {path.parent.relative_to(ROOT) for path in sources(ROOT / "tests")}
    # robustness: of the whole, against what users and machines do to it
    lost = {str(folder) for folder in folders if not (ROOT / Path(*folder.parts[1:])).is_dir()} - {
        "tests/robustness"
    }
    assert not lost, "the package has no such folders"
