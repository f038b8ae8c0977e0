"""conf/ and overrides to one plain mapping, by Hydra; and its complaints in one line."""

import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import bench
from bench.codec import decode, nearest
from bench.config.schema import Config, fill_head_dim
from bench.errors import UsageError
from bench.facts.hardware import Device
from bench.facts.prediction import Prior

T = TypeVar("T")


def conf_dir() -> Path:
    """The folder of configuration files: beside the package in a checkout, inside it in a wheel."""
    package = Path(bench.__file__).resolve().parent
    inside, beside = package / "conf", package.parent / "conf"
    return inside if inside.is_dir() else beside


def groups() -> dict[str, tuple[str, ...]]:
    """Names of the configuration groups, each with its options."""
    found = {d.name: d for d in sorted(conf_dir().iterdir()) if d.is_dir() and not d.name.startswith("_")}
    return {name: _options(folder) for name, folder in found.items()}


def _options(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "base"))


def compose_plain(overrides: Sequence[str]) -> dict[str, Any]:
    """The composed configuration as a plain mapping. Raises UsageError for anything that Hydra refuses."""
    parsed = [_parsed(text) for text in overrides]
    try:
        plain = OmegaConf.to_container(_hydra_compose(overrides), resolve=True, throw_on_missing=True)
    except MissingConfigException as error:
        raise UsageError(_unknown_option(error, parsed)) from None
    except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:  # Hydra's own, for odd values of a group
        raise UsageError(_unknown_key(parsed) or _first_line(error)) from None
    return cast(dict[str, Any], plain)


def compose(overrides: Sequence[str]) -> Config:
    """The composed and checked configuration."""
    return load(compose_plain(overrides))


def expand(overrides: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Every combination of the values that overrides such as `model=tiny,dense_5m` or `train.seed=range(3)` name, the last fastest."""
    return tuple(itertools.product(*map(_values, overrides)))


def _values(text: str) -> tuple[str, ...]:
    override = _any_parsed(text)
    if not override.is_sweep_override():
        return (text,)
    return tuple(f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator())


def load(plain: dict[str, Any]) -> Config:
    """The configuration that a composed mapping describes."""
    return decode(Config, fill_head_dim(plain))


@cache
def devices() -> tuple[Device, ...]:
    """Every device that conf/ has a datasheet of; read once, which takes a tenth of a second."""
    files = sorted((conf_dir() / "device" / "datasheet").glob("*.yaml"))
    return tuple(decode(Device, OmegaConf.to_container(OmegaConf.load(file))) for file in files)


def load_prior(file: Path) -> Prior:
    """The prior that a file of conf/prior holds."""
    return decode(Prior, OmegaConf.to_container(OmegaConf.load(file)))


def load_file(kind: type[T], group: str, name: str) -> T:
    """What a file of conf/ holds that stands alone, without defaults of its own."""
    return decode(kind, OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml")))


def find_device(torch_name: str) -> Device | None:
    """The datasheet of the device that torch calls so; None for an unknown name, however much it looks like a known one."""
    return next((device for device in devices() if torch_name in device.torch_names), None)


def _hydra_compose(overrides: Sequence[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def _any_parsed(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        shown = " ".join(text.split())
        raise UsageError(f"'{shown}' is not of the form key=value; quote values with spaces or brackets as in out='\"my dir\"'") from None


def _parsed(text: str) -> Override:
    override = _any_parsed(text)
    if override.is_sweep_override():
        shown = " ".join(text.split())
        raise UsageError(f"'{shown}' names several values; a run takes one; use bench sweep")
    return override


def _key(override: Override) -> str:
    return str(override.key_or_group)


def _unknown_option(error: MissingConfigException, overrides: Iterable[Override]) -> str:
    missing = error.missing_cfg_file or ""
    group, _, option = missing.rpartition("/")
    options = tuple(name for name in error.options or () if name != "base")
    if not options and (unknown := _unknown_key(overrides)):
        return unknown
    return f"{group}: no option '{option}'{nearest(option, options)} (options: {', '.join(options)})"


def _unknown_key(overrides: Iterable[Override]) -> str | None:
    """What is wrong with the first override whose key is neither a group nor in the configuration."""
    given = list(overrides)
    group_names = groups()
    chosen = [o.input_line or "" for o in given if _key(o).split("/")[0] in group_names and "." not in _key(o)]
    try:
        known = _paths(OmegaConf.to_container(_hydra_compose(chosen)))
    except (HydraException, OmegaConfBaseException, TypeError, ValueError):
        return None  # a group itself is given an odd value: Hydra's own words say so
    for override in given:
        key = _key(override)
        if key.split("/")[0] not in group_names and key not in known:
            return f"{key}: unknown key{nearest(key, (*known, *group_names))}"
    return None


def _paths(plain: Any, prefix: str = "") -> set[str]:
    if not isinstance(plain, dict):
        return set()
    here = {f"{prefix}{key}": value for key, value in plain.items()}
    return set(here).union(*(_paths(value, f"{path}.") for path, value in here.items()))


def _first_line(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2] if line.strip())
