"""Nothing that is read is ever run: no pickles, no evaluated text, no shell, no class named by a configuration."""

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config.compose import compose
from bench.errors import UsageError

ROOT = Path(__file__).parents[2]
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads", "shelve.open",
    "torch.load", "joblib.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "hydra.utils.instantiate", "hydra.utils.call",
    "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip
# torch.distributed.checkpoint writes its list of tensors as a pickle: that room reads it, after its checksum agreed, by an unpickler
# that knows a dozen names and no other
EXCEPTIONS = {"bench/run/manifest.py": ["pickle"]}
FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}


def breaches(source: str) -> list[str]:
    """Every call and import in a source text that could run what was read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_IMPORTS]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_IMPORTS:
            found.append(node.module or "")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            shell = any(keyword.arg == "shell" for keyword in node.keywords)
            unsafe = name == "np.load" and any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
            if name in FORBIDDEN_CALLS or shell or unsafe:
                found.append(name)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "bench").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_that_is_read_is_run(path: Path) -> None:
    assert breaches(path.read_text()) == EXCEPTIONS.get(path.relative_to(ROOT).as_posix(), [])


@pytest.mark.parametrize(
    "source", ["import pickle", "from cloudpickle import loads", "eval(text)", "torch.load(file)", "subprocess.run(text, shell=True)"]
)
def test_a_planted_execution_is_found(source: str) -> None:
    assert len(breaches(source)) == 1


def test_no_configuration_file_names_a_class() -> None:
    assert [path for path in (ROOT / "conf").rglob("*.yaml") if "_target_" in path.read_text()] == []


@pytest.mark.parametrize(
    "override", ["+_target_=os.system", "+model._target_=os.system", "model._target_=os.system", "++device._target_=builtins.exec"]
)
def test_a_class_named_on_the_command_line_is_an_unknown_key(override: str) -> None:
    with pytest.raises(UsageError, match="unknown key"):
        compose([override])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["name", "out", "rows", "result"]), st.text(alphabet="${}:.()`;|&<>'\"\\ \n_abc", max_size=20))
def test_a_value_full_of_shell_is_a_value_or_refused(key: str, value: str) -> None:
    try:
        config = compose([f"{key}={value}"])
    except UsageError:
        return
    assert isinstance(getattr(config, key), str | None)
