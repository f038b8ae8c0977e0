"""Every key of the command line: its type, its default, and what conf/ says about it."""

import re
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import EnumType
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from bench.config.compose import compose_plain, conf_dir, groups
from bench.config.schema import Config
from bench.facts.key import Key

# groups whose keys are made to be overridden one by one, with the file that comments them; of the others one takes a whole option
COMMENTED = {
    "model": ("model/tiny", "model/base"),
    "device": ("device/auto",),
    "plan": ("plan/ddp", "plan/base"),
    "measure": ("measure/standard",),
    "probe": ("probe/standard",),
    "slice": ("slice/standard",),
    "engine": ("engine/slurm",),
}
WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
COMMENT = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?P<value>[^#\"]*(?:\"[^\"]*\")?[^#\"]*)(?:#\s*(?P<comment>.*))?$")


def keys() -> tuple[Key, ...]:
    """Keys in the order of the composed configuration, of the groups that are overridden key by key and of config.yaml itself."""
    plain, own = compose_plain(["model=tiny"]), groups()
    shown = {name: value for name, value in plain.items() if name not in own or name in COMMENTED}
    meanings = _meanings()
    return tuple(
        Key(path=path, kind=_kind(path, value), default=_shown(value), meaning=meanings.get(path, "")) for path, value in _leaves(shown)
    )


def _leaves(plain: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in plain.items():
        here = f"{path}.{name}" if path else str(name)
        if isinstance(value, dict) and value:
            yield from _leaves(value, here)
        else:
            yield here, value


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _meanings() -> dict[str, str]:
    """Comments of conf/ by path; the file named first has the first word."""
    found = dict(_comments(conf_dir() / "config.yaml", ""))
    for group, files in COMMENTED.items():
        for name in reversed(files):
            found |= dict(_comments(conf_dir() / f"{name}.yaml", group))
    return found


def _comments(file: Path, prefix: str) -> Iterator[tuple[str, str]]:
    above: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not (match := COMMENT.match(line)):
            continue
        indent = len(match["indent"])
        above = [*((i, key) for i, key in above if i < indent), (indent, match["key"])]
        if match["comment"]:
            yield ".".join([*([prefix] if prefix else []), *(key for _, key in above)]), match["comment"].strip()


def _kind(path: str, value: Any) -> str:
    """The type of a key in words, found by walking the schema; `auto` may stand where it is filled in before that is asked."""
    kinds: list[Any] = [Config]
    for name in path.split("."):
        kinds = [hint for kind in kinds for hint in _field_types(kind, name)]
    words = dict.fromkeys([*(["auto"] if value == "auto" else []), *(word for kind in kinds for word in _words(kind))])
    return " or ".join(words)


def _field_types(kind: Any, name: str) -> list[Any]:
    members = list(_members(kind))
    return [get_type_hints(m, include_extras=True)[name] for m in members if is_dataclass(m) and name in {f.name for f in fields(m)}]


def _members(kind: Any) -> Iterator[Any]:
    """The types that a union, annotated or not, is made of."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType):
        for member in get_args(kind):
            yield from _members(member)
    else:
        yield kind


def _words(kind: Any) -> Iterator[str]:
    for member in _members(kind):
        if get_origin(member) is Literal:
            yield from map(str, get_args(member))
        elif isinstance(member, EnumType):
            yield from map(str, cast(Any, member))
        elif get_origin(member) in (tuple, list):
            yield "list"
        else:
            yield WORDS.get(member, "mapping")
