"""Inputs as they come from a careless hand or a torn disk: seeded, so that a failure can be had again."""

import copy
import random
from collections.abc import Iterator
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "auto", "null", "0", "1e9", "ja", "\0", "\n", "é", "😀", "a" * 5000),
    *([], {}, [None], {"": None}, {"value": 1}, [[]], "../../../etc/passwd", "$(reboot)", "${oc.env:HOME}", "_target_", "!!python/object"),
)
TOKENS = (b"", b"\0", b"\xff", b"{", b"}", b"[", b"]", b'"', b",", b"\n", b"1e999", b"NaN", b"-", b"null", b"\xf0\x9f", b"'", b'""', b";")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything inside a mapping."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def odd_mapping(rng: random.Random, plain: Any, known: list[tuple[Any, ...]]) -> Any:
    """The mapping with one to four places changed, gone, doubled, or swapped with another."""
    changed = copy.deepcopy(plain)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        path = rng.choice(known)
        parent = at(changed, path[:-1])
        if not isinstance(parent, dict | list) or (isinstance(parent, list) and not (isinstance(path[-1], int) and path[-1] < len(parent))):
            continue
        act = rng.randrange(6)
        if act == 0 and isinstance(parent, dict):
            parent.pop(path[-1], None)
        elif act == 1 and isinstance(parent, dict):
            parent[rng.choice(("unknown", "", "_target_", "x" * 300, f"{path[-1]}s"))] = rng.choice(ODD)
        elif act == 2:
            parent[path[-1]] = copy.deepcopy(at(plain, rng.choice(known)))
        elif act == 3 and isinstance(at(changed, path), int | float):
            parent[path[-1]] = at(changed, path) * rng.choice((-1, 0, 2, 3, 1000, 0.001, 1e-30, 1e30))
        else:
            parent[path[-1]] = copy.deepcopy(rng.choice(ODD))
    return changed


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """What lies at a path; None where nothing does any more."""
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def odd_bytes(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to eight changes: flipped, cut, doubled, or with something put in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not changed:
            break
        place = rng.randrange(len(changed))
        act = rng.randrange(5)
        if act == 0:
            changed[place] = rng.randrange(256)
        elif act == 1:
            changed[place] ^= 1 << rng.randrange(8)
        elif act == 2:
            del changed[place : place + rng.choice((1, 4, 100, len(changed)))]
        elif act == 3:
            changed[place:place] = changed[place : place + rng.choice((1, 8, 64))]
        else:
            changed[place:place] = rng.choice(TOKENS)
    return bytes(changed)
