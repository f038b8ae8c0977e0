"""Device profiles that conf/ keeps: conf/device/profile/*.json, as `bench probe` writes them, or the same in YAML."""

from pathlib import Path

from omegaconf import OmegaConf

from bench.codec import decode, decode_text
from bench.config.compose import conf_dir
from bench.facts.profile import DeviceProfile


def profile_dir() -> Path:
    """The folder of kept profiles; it need not be there."""
    return conf_dir() / "device" / "profile"


def load_profile(file: Path) -> DeviceProfile:
    """The profile in a JSON or YAML file. Raises UsageError where it is none."""
    return decode_text(DeviceProfile, file.read_bytes()) if file.suffix == ".json" else decode(DeviceProfile, _plain(file))


def profiles(folder: Path | None = None) -> tuple[DeviceProfile, ...]:
    """Every kept profile."""
    files = (folder or profile_dir()).glob("*")
    return tuple(load_profile(file) for file in sorted(files) if file.suffix in (".json", ".yaml"))


def find_profile(device_name: str, folder: Path | None = None) -> DeviceProfile | None:
    """The latest kept profile of the device that torch calls so; None for an unknown name."""
    return max((p for p in profiles(folder) if p.device_name == device_name), key=lambda p: p.date, default=None)


def _plain(file: Path) -> object:
    return OmegaConf.to_container(OmegaConf.load(file))
