"""Secrets out of every text that leaves a process: by the names of variables, by their values, and by their shape.

What cannot be told from text is left: the value of a secret that is shorter than 8 characters, a plain lower-case word or a
number is masked as a variable, and not wherever the same word or number occurs.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TextIO
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
SHORTEST_SECRET = 8

# words that make a variable's name one of a secret; TOKENIZERS_PARALLELISM and SSH_AUTH_SOCK are none
SECRET_NAME = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|PRIVATE|(?:^|_)KEY(?:$|_)|COOKIE|(?:^|_)AUTH(?!OR|_SOCK)|JWT|SIGNATURE|"
    r"_PWD$|CONNECTION_STRING|DSN$",
    re.IGNORECASE,
)
URL_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s\"'<>]+(?=@)")
# shapes that are secrets whoever holds them. Source: the formats their issuers document (AWS, GitHub, GitLab, Google, Hugging Face,
# OpenAI, Slack, RFC 7519 for JWT, RFC 7468 for PEM, RFC 6750 for bearer tokens)
SECRET_SHAPE = re.compile(
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|AIza[\w-]{35}|ya29\.[\w-]{20,}|"
    r"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
AFTER_NAME = re.compile(
    r"(?P<name>\b(?i:bearer|basic)\s+|[?&;](?i:token|access_token|api_?key|sig|signature|x-amz-signature|x-amz-security-token|"
    r"x-amz-credential|password)=|\b[A-Z_]{0,40}(?:TOKEN(?!S|IZER)|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY)[A-Z_]{0,40}=)(?P<value>[^\s&\"'<>,;]{4,})"
)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return bool(SECRET_NAME.search(name))


def masked_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables with every secret masked, by name, by value and by shape."""
    secrets = secret_values(variables)
    return {name: MASK if is_secret_name(name) and value else masked_text(value, secrets) for name, value in variables.items()}


def secret_values(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Values to look for in texts, longest first: those of secret variables, and the passwords in the URLs of all."""
    named = [value for name, value in variables.items() if is_secret_name(name)]
    in_urls = [part for value in variables.values() if "@" in value for part in _url_secrets(value)]
    kept = {value.strip() for value in (*named, *in_urls) if _is_telling(value.strip())}
    return tuple(sorted(kept, key=lambda value: (-len(value), value)))


def masked_text(text: str, secrets: Iterable[str] | None = None) -> str:
    """The text with `secrets` (by default: those of this process's environment) and whatever has a secret's shape masked."""
    known = _of_environment() if secrets is None else tuple(secrets)
    pattern = _any_of(known)
    text = pattern.sub(MASK, text) if pattern else text
    text = URL_CREDENTIALS.sub(MASK, text) if "@" in text else text
    return AFTER_NAME.sub(rf"\g<name>{MASK}", SECRET_SHAPE.sub(MASK, text))


class MaskingStream:
    """A text stream that masks every whole line before it is written; the rest at `flush`."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._open_line = ""

    def write(self, text: str) -> int:
        """Number of characters taken."""
        whole, newline, self._open_line = (self._open_line + text).rpartition("\n")
        if newline:
            self._target.write(masked_text(whole) + newline)
        return len(text)

    def flush(self) -> None:
        """Nothing; what was written so far is in the stream below."""
        if self._open_line:
            self._target.write(masked_text(self._open_line))
            self._open_line = ""
        self._target.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._target, name)


def _of_environment() -> tuple[str, ...]:
    return _values_of(tuple(sorted((k, v) for k, v in os.environ.items() if is_secret_name(k) or "@" in v)))


@lru_cache(maxsize=8)
def _values_of(variables: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return secret_values(dict(variables))


@lru_cache(maxsize=8)
def _any_of(secrets: tuple[str, ...]) -> re.Pattern[str] | None:
    """Each secret as it is, as JSON writes it, and as a URL does; never as the key of a mapping."""
    forms = {form for s in secrets for form in (s, json.dumps(s)[1:-1], quote(s, safe=""), unquote(s)) if len(form) >= SHORTEST_SECRET}
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("(?:" + "|".join(map(re.escape, longest_first)) + r')(?!"\s*:)') if forms else None


def _url_secrets(value: str) -> list[str]:
    """Passwords, and user names without one, of the URLs in a value."""
    found = []
    for url in re.findall(r"\w+://[^\s\"'<>]+", value):
        try:
            parts = urlsplit(url)
        except ValueError:
            continue
        found += [part for part in (parts.password or parts.username,) if part]
    return found


def _is_telling(value: str) -> bool:
    """Whether a value is enough like a secret to be masked wherever it occurs: no short or plain word, no number, no file."""
    if len(value) < SHORTEST_SECRET or re.fullmatch(r"[a-z_]+|[A-Z_]+|[\d.,:eE+-]+", value):
        return False
    try:
        return not (value.startswith(("/", "~")) and Path(value).expanduser().exists())
    except (OSError, ValueError, RuntimeError):
        return True
