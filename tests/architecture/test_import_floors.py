"""The house: who may import whom, held as data. Any other import fails."""

import ast
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"

# Each room and the rooms it may import, besides itself. The order is the order of the floors.
FLOORS: dict[str, set[str]] = {
    "on_demand": set(),
    "errors": set(),
    "masking": set(),
    "facts": {"errors"},
    "stats": {"errors", "facts"},
    "contrast": {"facts", "stats"},
    "codec": {"errors", "facts"},
    "cost": {"errors", "facts", "stats"},
    "run": {"errors", "on_demand", "masking", "facts", "stats"},
    "store": {"errors", "masking", "facts", "stats", "codec"},
    "report": {"errors", "masking", "facts", "stats"},
    "config": {"errors", "facts", "stats", "codec"},
    "probing": {"errors", "facts", "stats", "codec", "cost", "run", "report", "config"},
    "tracing": {"errors", "facts", "cost", "run", "config"},
    "backtest": {"errors", "facts", "cost", "store", "config"},
    "accuracy": {"errors", "facts", "cost", "config", "backtest"},
    "forecast": {"errors", "facts", "cost", "store", "report", "config", "backtest", "accuracy"},
    "worker": {"errors", "on_demand", "masking", "facts", "stats", "codec", "cost", "run", "store", "report", "config", "probing"},
    "simulation": {"cost"},
    "deciding": {"errors", "facts", "cost", "store", "report", "config", "forecast", "simulation"},
    "backcheck": {"facts", "cost", "store", "config", "simulation", "deciding"},
    "claims": {"facts", "cost", "store", "report", "config", "deciding"},
    "jobs": {"errors", "facts", "codec", "cost", "run", "store", "report", "config", "worker", "forecast"},
    "reporting": {"errors", "facts", "cost", "store", "report", "config", "backtest", "forecast"},
    "copies": {"errors", "store", "report"},
    "sweep": {"errors", "facts", "store", "report", "config", "jobs", "copies"},
    "following": {"errors", "run", "store", "report", "config", "jobs"},
    "submit": {"errors", "facts", "run", "store", "config"},
    "api": {
        "on_demand",
        "copies",
        "errors",
        "facts",
        "stats",
        "codec",
        "cost",
        "run",
        "store",
        "report",
        "config",
        "tracing",
        "worker",
        "forecast",
        "jobs",
        "reporting",
    },
    "comparing": {"errors", "facts", "codec", "contrast", "store", "config"},
    "rerunning": {"errors", "facts", "run", "store", "config", "jobs", "reporting", "comparing"},
    "sharing": {"errors", "facts", "cost", "report", "store", "config"},
    "showing": {"codec", "report"},
    "lab": {"errors", "facts", "stats", "cost", "run", "store", "report", "config"},
    "grammar": {"errors", "config", "report"},
    "verbs": {
        *("errors", "facts", "run", "config", "report", "worker", "api", "forecast", "sweep", "deciding", "reporting", "following"),
        *("submit", "comparing", "rerunning", "sharing", "showing", "lab", "grammar"),
    },
    "cli": {"errors", "on_demand", "codec", "config", "report", "grammar"},
    "__main__": {"masking", "cli"},
}

# Libraries that only these rooms may import; the standard library is free except for what is named here.
OUTSIDE: dict[str, set[str]] = {
    "torch": {"run", "worker"},
    "accelerate": {"run", "worker"},
    "hydra": {"config"},
    "omegaconf": {"config"},
    "pydantic": {"codec", "config"},
    "pydantic_core": {"codec"},
    "numpy": {"stats", "cost", "run", "backtest", "accuracy", "sweep", "simulation", "deciding", "backcheck", "claims"},
    "psutil": {"run"},
    "pynvml": {"run"},
    "torchao": {"run"},
    "packaging": {"run"},
    "rich": {"report"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "yaml": {"store", "cli"},
    "subprocess": {"run"},
    "random": {"store"},  # jitter between tries
    "fsspec": {"store"},
    "logging": {"run"},
    "time": {"run", "report", "store"},
}


def room_of(file: Path, root: Path) -> str:
    first = file.relative_to(root).parts[0]
    return first.removesuffix(".py")


def breaches(root: Path) -> list[str]:
    """Every import below `root` that the two tables do not allow, as `file:line: imports what`."""
    found = []
    for file in sorted(root.rglob("*.py")):
        room = room_of(file, root)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if room == "__init__":
            continue
        for node in ast.walk(tree):
            for name in imported(node):
                if not allowed(room, name):
                    found.append(f"{file.relative_to(root)}:{node.lineno}: imports {name}")
        found += [f"{file.relative_to(root)}:{node.lineno}: import inside a function" for node in nested_imports(tree)]
    return found


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "on_demand":
        return [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"bench.{alias.name}" for alias in node.names] if node.module == "bench" else [node.module]
    return []


def nested_imports(tree: ast.Module) -> list[ast.stmt]:
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [n for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)]


def allowed(room: str, name: str) -> bool:
    top, *rest = name.split(".")
    if top != "bench":
        return room in OUTSIDE.get(top, {room})
    if not rest:
        return True  # the version
    return rest[0] == room or rest[0] in FLOORS[room]


def test_no_import_goes_up_or_sideways() -> None:
    assert breaches(BENCH) == []


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(file, BENCH) for file in BENCH.rglob("*.py")} - {"__init__"}
    assert rooms == set(FLOORS)


def test_no_room_allows_a_cycle() -> None:
    order = list(FLOORS)
    upward = [(room, other) for room, others in FLOORS.items() for other in others if order.index(other) >= order.index(room)]
    assert upward == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("facts/planted.py", "from bench.cost.flops import flops_per_token"),
        ("cost/planted.py", "import bench.run.train"),
        ("run/planted.py", "from bench import report"),
        ("cost/planted.py", "import torch"),
        ("store/planted.py", "def f():\n    import json"),
        ("run/planted.py", 'on_demand("bench.report.tables", "Table")'),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, file: str, line: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir()
    planted.write_text(line + "\n")
    assert len(breaches(tmp_path)) == 1
