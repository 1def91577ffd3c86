"""Numbers in the kernel models: what is fitted or judged stands in hw_configs/families/*.yaml, where `calibrate` can move it;
what stays in code is an exact fact, and a comment with 'exact:' says whose."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

SIMULATOR = Path(__file__).parents[3] / "simulator"
FILES = (*sorted((SIMULATOR / "kernels").glob("*.py")), SIMULATOR / "lowering" / "fusion.py")
PLAIN = (0, 1, 2, 0.5)
UNIT_FACTORS = (1e3, 1e6, 1e9, 1e-3, 1e-6, 1e-9)
BITS_OF_A_BYTE = 8
KIBIBYTE = 1024
EXPLAINED = "exact:"


def comments(text: str) -> tuple[dict[int, str], set[int]]:
    """The comment of each line that has one, and the lines that hold nothing else."""
    found, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = token.string
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    return found, alone


def is_explained(statement: ast.stmt, found: dict[int, str], alone: set[int]) -> bool:
    """Whether it assigns to names in capitals, and a comment within it or directly above it says what is exact."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    names = [name for target in targets for name in getattr(target, "elts", [target])]
    if not all(isinstance(name, ast.Name) and name.id.isupper() for name in names):
        return False
    lines = list(range(statement.lineno, statement.end_lineno + 1))
    above = statement.lineno - 1
    while above in alone:
        lines.append(above)
        above -= 1
    return any(EXPLAINED in found.get(line, "") for line in lines)


def is_plain(value: complex, line: str) -> bool:
    """Whether a number needs no word: a count, a half, a factor between units."""
    if value in PLAIN or value in UNIT_FACTORS:
        return True
    if value == BITS_OF_A_BYTE:
        return "bits" in line
    return isinstance(value, int) and value % KIBIBYTE == 0 and "bytes" in line.lower()


def unexplained(text: str) -> list[tuple[int, float]]:
    """(line, number) of each number of a module that is neither plain nor explained."""
    found, alone = comments(text)
    lines = text.splitlines()
    wrong: list[tuple[int, float]] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Call) and "lru_cache" in ast.unparse(node.func):
            return  # how much is remembered changes no figure
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and is_explained(node, found, alone):
            return
        number = isinstance(node, ast.Constant) and type(node.value) in (int, float, complex)
        if number and not is_plain(node.value, lines[node.lineno - 1]):
            wrong.append((node.lineno, node.value))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(text))
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_fitted_number_stands_in_code(path):
    wrong = [f"{path.name}:{line}: {number}" for line, number in unexplained(path.read_text())]
    assert not wrong, (
        "move them to hw_configs/families, or say in a comment with 'exact:' where they are from"
    )


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("slots = 40", [40]),
        ("SLOTS = 40", [40]),
        ("SLOTS = 40  # fitted", [40]),
        ("THREADS = 512  # exact: block_reduce.h", []),
        ("# exact: block_reduce.h,\n# both of them\nTHREADS, VECTOR = 512, 4", []),
        ("# exact: of another\n\nTHREADS = 512", [512]),
        ("TILES = (\n    Tile(128, 64),  # exact: the kernels' names\n    Tile(256, 64),\n)", []),
        ("def f(x):\n    return x * 3 + 2 * x - 1", [3]),
        ("def f(x, latency_s=0.9e-6):\n    return x * 1e6 * 0.5", [0.9e-6]),
        ("nbytes = size_bytes // 8192\nrow = elements // 8192", [8192]),
        ("bits_a_second = 8 * rate  # bits\nwide = 8 * rate", [8]),
        ("def f(x):\n    'takes 40 cycles'  # 41\n    return True", []),
        ("GATHER: int = 8  # exact: Indexing.cu", []),
        ("slots = {'gelu': 15.0}", [15.0]),
        ("@functools.lru_cache(maxsize=4096)\ndef f(x):\n    return x * 3", [3]),
    ],
)
def test_what_counts_as_explained(text, numbers):
    assert [number for _, number in unexplained(text)] == numbers
