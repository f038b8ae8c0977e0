"""Figures in conf/: each has a source, and every cluster, target, device, prior and price decodes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from bench.cost.coefficients import NAMES
from bench.facts.figure import Figure, Provenance
from bench.facts.hardware import Cluster, Device, Precision
from bench.facts.model import Target
from bench.facts.prediction import Prior
from bench.facts.scenario import Scenario
from bench.facts.stack import Stack

CONF = Path(__file__).parents[2] / "conf"
DECIDING = ("option", "scenario", "site", "recovery", "reliability", "rental", "purchase", "wide_area")
GROUPS = ("device/datasheet", "cluster", "target", "prior", "price", *DECIDING)
FILES = [path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
STORY = ["oracle_24k_h100", "memphis_100k_h100", "blackwell_300k_b200", "gpt4_25k_a100"]


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(group: str, name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain = OmegaConf.to_container(compose(overrides=[f"+{group}={name}"]), resolve=True)
    for key in group.split("/"):
        plain = cast(dict[str, Any], plain)[key]
    return cast(dict[str, Any], plain)


def decoded(kind: Any, plain: dict[str, Any]) -> Any:
    model = plain.get("model")
    if model and model["head_dim"] == "auto":
        model["head_dim"] = model["d_model"] // model["n_heads"]
    return TypeAdapter(kind).validate_json(json.dumps(plain))


def figures(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a value, and where it stands."""
    if isinstance(node, dict):
        if "value" in node or "p50" in node:
            yield path, node
        for key, child in node.items():
            yield from figures(child, f"{path}.{key}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_figure_has_a_source(path: Path) -> None:
    found = list(figures(yaml.safe_load(path.read_text())))
    assert found or path.stem == "story" or path.parent.name == "scenario"
    for where, figure in found:
        assert figure["source"].strip(), where
        assert figure["provenance"] in list(Provenance), where


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_number_is_a_figure_or_a_size(path: Path) -> None:
    sizes = {"n_nodes", "devices_per_node", "scale_up_domain"}
    sizes |= {"n_replicas", "n_sites", "local_steps", "horizon_days", "n_samples", "seed"}
    plain = {
        key: value
        for key, value in yaml.safe_load(path.read_text()).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    assert set(plain) <= sizes


@pytest.mark.parametrize("name", names("device/datasheet"))
def test_device_decodes(name: str) -> None:
    device: Device = decoded(Device, composed("device/datasheet", name))
    assert device.torch_names
    assert device.memory_bytes.value < 320e9


@pytest.mark.parametrize("name", [name for name in names("cluster") if name != "story"])
def test_cluster_decodes_with_its_device(name: str) -> None:
    cluster: Cluster = decoded(Cluster, composed("cluster", name))
    assert cluster.name == name
    assert cluster.claim
    assert Precision.BF16 in cluster.device.matmul_flops_per_s


def test_story_is_its_four_clusters_under_their_names() -> None:
    story = composed("cluster", "story")
    assert list(story) == STORY
    sizes = [decoded(Cluster, story[name]).n_devices for name in STORY]
    assert sizes == [24_000, 100_000, 300_000, 25_000]


@pytest.mark.parametrize("name", names("target"))
def test_target_decodes_with_its_model(name: str) -> None:
    target: Target = decoded(Target, composed("target", name))
    assert target.name == target.model.name == name
    # about 64 million tokens a step, whatever the length of a sequence
    assert target.max_global_batch_size.value * target.model.seq_len == pytest.approx(2**26)


@pytest.mark.parametrize("name", names("prior"))
def test_prior_decodes(name: str) -> None:
    prior: Prior = decoded(Prior, composed("prior", name))
    assert set(prior.coefficients) == set(NAMES)


@pytest.mark.parametrize("name", names("stack"))
def test_stack_decodes(name: str) -> None:
    assert decoded(Stack, composed("stack", name)).name == name


def test_no_two_devices_share_an_alias() -> None:
    aliases = [alias for device in names("device/datasheet") for alias in decoded(Device, composed("device/datasheet", device)).aliases]
    assert len(aliases) == len(set(aliases))


@pytest.mark.parametrize("name", names("price"))
def test_prices_are_of_known_devices(name: str) -> None:
    plain = composed("price", name)
    prices = TypeAdapter(dict[str, Figure]).validate_json(json.dumps(plain["rental_usd_per_device_hour"]))
    devices = {decoded(Device, composed("device/datasheet", device)).name for device in names("device/datasheet")}
    assert set(prices) <= devices
    assert plain["name"] == name


def test_torch_names_are_of_one_device_each() -> None:
    found = [name for device in names("device/datasheet") for name in composed("device/datasheet", device)["torch_names"]]
    assert len(found) == len(set(found))


def scenario_names() -> list[str]:
    return [name for name in names("scenario") if name not in ("none", "base")]


@pytest.mark.parametrize("name", scenario_names())
def test_scenario_decodes_with_its_options(name: str) -> None:
    scenario: Scenario = decoded(Scenario, composed("scenario", name))
    assert scenario.name == name
    for key, option in scenario.options.items():
        assert option.name == key
        assert option.claim
        assert option.n_devices > 0


def test_every_option_is_a_scenario_of_its_own() -> None:
    assert set(names("option")) == set(scenario_names()) - {"rent_or_build"}
