"""Measures the house: rooms and their sizes, imports of private names across rooms, how far a setting reaches.

python tests/structure.py [SRC] [--setting NAME ...]

SRC is the folder that holds the package, src by default, so that two versions can be compared.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from pathlib import Path

PACKAGE = "fedscgen"
ROOT = Path(__file__).parents[1]


def files_of(folder):
    return sorted(folder.rglob("*.py"))


def room_of(path, src):
    """The folder or module right below the package."""
    first = path.relative_to(src / PACKAGE).parts[0]
    return first.removesuffix(".py")


def sizes(src):
    """Files and lines by room, the largest first."""
    files, lines = Counter(), Counter()
    for path in files_of(src / PACKAGE):
        room = room_of(path, src)
        files[room] += 1
        lines[room] += len(path.read_text(encoding="utf-8").splitlines())
    return {room: (files[room], n) for room, n in lines.most_common()}


def imports_of(path):
    """What a file imports of the package: dotted names, and the line of each."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.startswith(f"{PACKAGE}."))


def is_private(name):
    """Whether an imported name is private to its room; modules right below the package are for all rooms."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split(".")[2:])


def private_imports(src):
    """Imports of another room's private names, as "file:line name"."""
    return [
        f"{path.relative_to(src)}:{line} {name}"
        for path in files_of(src / PACKAGE)
        for name, line in imports_of(path)
        if is_private(name) and name.split(".")[1] != room_of(path, src)
    ]


def private_imports_of_tests(tests):
    """Imports of private names by tests that aren't of the room itself."""
    return [
        f"{path.relative_to(tests)}:{line} {name}"
        for path in files_of(tests)
        for name, line in imports_of(path)
        if is_private(name) and name.split(".")[1] != path.relative_to(tests).parts[0]
    ]


def parameters_of(src, function):
    """Names of a function's parameters, wherever it is defined."""
    for path in files_of(src / PACKAGE / "federation"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name == function:
                arguments = node.args
                return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    raise LookupError(function)


def files_with(src, name):
    """Files whose code, without comments and docstrings, has this name or a text that holds it."""
    found = []
    for path in files_of(src / PACKAGE):
        code = ast.unparse(drop_docstrings(ast.parse(path.read_text(encoding="utf-8"))))
        if re.search(rf"\b{name}\b|\b{name.replace('_', '-')}\b", code):
            found.append(str(path.relative_to(src / PACKAGE)))
    return found


def drop_docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("src", nargs="?", type=Path, default=ROOT / "src")
    parser.add_argument("--setting", nargs="*", default=["lr_decay", "early_stopping_patience", "min_cells"])
    given = parser.parse_args()
    rooms = sizes(given.src)
    total = sum(n for _, n in rooms.values())
    print(f"{'room':22}{'files':>6}{'lines':>7}{'share':>7}")
    for room, (n_files, n_lines) in rooms.items():
        print(f"{room:22}{n_files:6}{n_lines:7}{n_lines / total:7.0%}")
    print(f"{'all':22}{sum(n for n, _ in rooms.values()):6}{total:7}")
    print(f"\nparameters of simulate: {len(parameters_of(given.src, 'simulate'))}")
    for setting in given.setting:
        found = files_with(given.src, setting)
        print(f"files with {setting}: {len(found)} ({', '.join(found)})")
    crossing = private_imports(given.src)
    print(f"imports of another room's private names: {len(crossing)}", *crossing, sep="\n  ")
    of_tests = private_imports_of_tests(given.src.parent / "tests")
    print(f"imports of private names by tests of other rooms: {len(of_tests)}", *of_tests, sep="\n  ")


if __name__ == "__main__":
    main()
