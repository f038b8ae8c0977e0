"""The one door: plain mappings to typed facts and back, strict, with the path of a bad key in the error."""

import difflib
import json
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from bench.errors import UsageError

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def decode(kind: type[T], plain: Any) -> T:
    """The fact that a plain mapping describes.

    Raises UsageError for the first thing wrong: its path, what was given, the rule.
    """
    return decode_text(kind, json.dumps(plain))


def decode_text(kind: type[T], text: str | bytes) -> T:
    """The fact that a JSON text describes; errors as in `decode`."""
    try:
        return cast(T, _adapter(cast(Hashable, kind)).validate_json(text))
    except ValidationError as error:
        raise UsageError("\\n".join(_sentence(error.errors()[0]).splitlines())) from None


def encode(value: Any) -> Any:
    """The plain mapping of a fact: what `decode` takes."""
    return _adapter(cast(Hashable, type(value))).dump_python(value, mode="json")


def encode_text(value: Any) -> str:
    """The JSON text of a fact, indented."""
    return json.dumps(encode(value), indent=1, allow_nan=False) + "\n"


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a fact."""
    return _adapter(kind).json_schema()


def nearest(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or nothing where none is close."""
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _sentence(error: ErrorDetails) -> str:
    path = ".".join(str(part) for part in error["loc"] if not str(part).startswith("<"))
    lead = f"{path}: " if path else ""
    match error["type"]:
        case "unexpected_keyword_argument":
            return f"{lead}unknown key{_among(error)}"
        case "missing_argument" | "missing" | "missing_keyword_only_argument":
            return f"{lead}is missing"
        case "value_error":
            return f"{lead}{error['ctx']['error']}"
        case "json_invalid":
            return f"{lead}not JSON: {error['msg']}"
    return f"{lead}{_shown(error['input'])} given; {error['msg'][0].lower()}{error['msg'][1:]}"


def _among(error: ErrorDetails) -> str:
    context = cast(Mapping[str, Any], error.get("ctx") or {})
    return nearest(str(error["loc"][-1]), context.get("fields", ()))


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
