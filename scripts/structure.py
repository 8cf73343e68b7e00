"""Counts what the package's layout promises: files, lines, imports, circles, arrows upwards, what has grown too long.

python scripts/structure.py [FOLDER]        FOLDER: of the package (default: medsae_plugin)
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

# From the bottom up: a package imports from those below it and from its own level.
LAYERS = (
    {"", "hooks", "pretrained"},  # the package's own modules: files, text, fetch, errors
    {"statistics"},
    {"phantoms"},
    {"data"},
    {"encoders"},
    {"store"},
    {"training"},
    {"scores"},
    {"causal", "localisation"},
    {"comparison", "naming", "patients", "confounding", "selectivity", "hierarchy", "robustness"},
    {"report", "release"},
    {"demo", "cli"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MOST_LINES, MOST_LINES_OF_FUNCTION = 400, 50


def main(root: Path) -> None:
    trees = {module_name(path, root): ast.parse(path.read_text("utf-8")) for path in sorted(root.rglob("*.py"))}
    paths = {module_name(path, root): path for path in root.rglob("*.py")}
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in paths.items()}
    edges = {name: imported(name, tree, paths) for name, tree in trees.items()}
    upward = sorted((a, b) for a, found in edges.items() for b in found if level(a, root) < level(b, root))
    long_functions = [
        f"{name}.{node.name} ({length(node)})"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > MOST_LINES_OF_FUNCTION
    ]
    long_files = [f"{name} ({n})" for name, n in lines.items() if n > MOST_LINES]
    any_results = [
        f"{name}.{node.name}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and node.returns is not None
        and ast.unparse(node.returns) in ("dict[str, Any]", "Mapping[str, Any]")
    ]
    print(
        f"files {len(paths)}, lines {sum(lines.values())}, imports within the package {sum(map(len, edges.values()))}"
    )
    for title, found in (
        ("circles", [" - ".join(circle) for circle in circles(edges)]),
        ("imports upwards", [f"{a} -> {b}" for a, b in upward]),
        (f"files over {MOST_LINES} lines", long_files),
        (f"functions over {MOST_LINES_OF_FUNCTION} lines", long_functions),
        ("public functions that return dict[str, Any]", any_results),
    ):
        print(f"{title}: {len(found)}")
        for row in found:
            print(f"  {row}")


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")


def level(module: str, root: Path) -> int:
    parts = module.split(".")[1:]
    if parts == ["__main__"]:
        return len(LAYERS)
    is_own = len(parts) == 1 and not (root / parts[0]).is_dir() and parts[0] not in LEVEL
    return LEVEL.get("" if not parts or is_own else parts[0], len(LAYERS))


def imported(module: str, tree: ast.Module, paths: dict[str, Path]) -> set[str]:
    """The package's modules that a module imports anywhere in it, for types alone too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in paths else node.module for name in names}
    return {name for name in found if name in paths and name != module}


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body, its docstring left out."""
    body = node.body[1:] if isinstance(node.body[0], ast.Expr) and ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other in a circle (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in edges[v]:
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            group = [stack.pop()]
            while group[-1] != v:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for module in edges:
        if module not in index:
            visit(module)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "medsae_plugin").resolve())
