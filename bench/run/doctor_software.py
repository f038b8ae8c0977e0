"""Checks of what is installed: whether versions fit together, and whether torch fits the driver."""

import platform
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from bench.facts.diagnosis import Finding, fail, ok, warn

CHECKED = ("proxybench", "torch", "accelerate", "hydra-core", "pydantic")
Look = Callable[[str], str | None]
Needs = Callable[[str], Sequence[str]]


def versions(version: Look | None = None, needs: Needs | None = None, python: str | None = None) -> Iterator[Finding]:
    """Whether every package has what it says that it needs."""
    look, ask = version or _version, needs or _needs
    for name in CHECKED:
        here = look(name)
        if here is None and name == CHECKED[0]:
            yield warn(f"package {name}", "not installed, so what it needs is not known here", "pip install -e . in the checkout")
        elif here is None:
            yield fail(f"package {name}", "not installed", "pip install -e . in the checkout, or scripts/bench")
        elif wrong := _unmet(ask(name), look):
            yield fail(
                f"package {name}", f"{here}; {'; '.join(wrong)}", f"pip install {' '.join(repr(text.split(' is ')[0]) for text in wrong)}"
            )
        else:
            yield ok(f"package {name}", f"{here}, and all that it needs")
    yield from _python(python or platform.python_version())


def _unmet(requirements: Sequence[str], look: Look) -> list[str]:
    """Requirements that what is installed does not meet, each as `torch<2.14,>=2.11 is 2.9.0 here`."""
    found = []
    for text in requirements:
        need = Requirement(text)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        here = look(need.name)
        if here is None:
            found.append(f"{need.name}{need.specifier} is not installed")
        elif not need.specifier.contains(here, prereleases=True):
            found.append(f"{need.name}{need.specifier} is {here} here")
    return found


def _python(here: str) -> Iterator[Finding]:
    asked = SpecifierSet(">=3.11")
    if asked.contains(here, prereleases=True):
        yield ok("Python", here)
    else:
        yield fail("Python", here, f"use Python {asked}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _needs(name: str) -> Sequence[str]:
    return metadata.requires(name) or ()


def cuda_fits(torch_cuda: str | None, driver_cuda: str | None) -> Finding | None:
    """Whether the driver knows the CUDA version that torch was built with; None where either is absent.

    Source: NVIDIA, CUDA Compatibility: a driver runs what was built with its own or an older major version, and any minor of its own.
    """
    if torch_cuda is None or driver_cuda is None:
        return None
    told = f"torch was built with CUDA {torch_cuda}, the driver knows {driver_cuda}"
    built, known = (tuple(int(part) for part in text.split(".")[:2]) for text in (torch_cuda, driver_cuda))
    if built[0] > known[0]:
        return fail("CUDA", told, "update the driver, or install a torch built with an older CUDA (pytorch.org, previous versions)")
    if built > known:
        return warn("CUDA", told, "it runs by minor-version compatibility; a newer driver compiles kernels of torch.compile better")
    return ok("CUDA", told)
