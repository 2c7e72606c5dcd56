"""Takes secrets out of text and objects when a fact is built, so that no form of it ever holds them. Pure.

What stays is enough to know that something was there: `[redacted]` in its place, the name before it untouched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"

_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?")
# the word after it must look like a credential: `Basic authentication failed` is prose
_SCHEME = re.compile(r"\b((?i:Bearer|Basic|Negotiate))(\s+)(?=\S*(?:[0-9=/+]|[a-z][A-Z]))[A-Za-z0-9+/=._~-]{8,}")
_URL_USER = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]{0,20}://)[^/\s@\"']*@")
_KNOWN_TOKEN = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{30,}|hv[sb]\.[A-Za-z0-9_-]{20,})"
)
_NAME = (
    r"(?:[A-Za-z0-9_.-]{0,64}?(?:passw(?:or)?d|passphrase|secret|api[-_]?key|access[-_]?key|private[-_]?key|token|psk"
    r"|credentials?|client[-_]?key[-_]?data)[A-Za-z0-9_-]{0,64})"
)
_ASSIGNED = re.compile(rf"(?i)(?<![A-Za-z0-9])({_NAME})([\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;&\"'}}\]]+)")
_HEADER = re.compile(r"(?im)^(\s*(?:proxy-)?authorization|\s*(?:set-)?cookie|\s*x-api-key)(\s*:\s*)(.+)$")

_SECRET_NAME = re.compile(rf"(?i){_NAME}\Z")
# names that hold a secret word but say only where a secret is, or how long it lives
_HARMLESS_NAME = re.compile(
    r"(?i)(.*(name|ref|refs|path|paths|file|dir|url|uri|mount|mounts|ttl|expiration(seconds)?|type|policy|audience|count|enabled"
    r"|key[-_]?selector)|automountserviceaccounttoken|secrets|imagepullsecrets|serviceaccounttoken|tokenrequests|secret|tokenreview.*)\Z"
)
_SECRET_HEADERS = frozenset(
    ("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token",
     "x-forwarded-access-token", "x-amz-security-token", "x-vault-token", "x-csrf-token")
)  # fmt: skip
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

# one cheap look that spares most strings the patterns above; a word of each of them
_HINT = re.compile(
    r"-----BEGIN|eyJ|://|[Tt]oken|TOKEN|[Ss]ecret|SECRET|[Pp]assw|PASSW|[Pp]assphrase|PASSPHRASE|[Kk]ey|KEY|[Pp]sk|PSK"
    r"|[Cc]redential|CREDENTIAL|[Bb]earer|BEARER|[Bb]asic|BASIC|[Nn]egotiate|[Dd]igest|[Cc]ookie|COOKIE|[Aa]uthorization"
    r"|gh[pousr]_|github_pat_|glpat-|xox|AKIA|ASIA|sk-|AIza|hv[sb]\."
)


_NO_SECRETS = ("", "null", "true", "false", "none", "[redacted", "bearer", "basic")


def redact_text(text: str) -> str:
    """The text without private keys, tokens, passwords in assignments and headers, and users in URLs."""
    if len(text) < 8 or not _HINT.search(text):
        return text
    text = _PRIVATE_KEY.sub(lambda m: f"-----BEGIN {m[1]}-----{REDACTED}", text)
    text = _HEADER.sub(lambda m: f"{m[1]}{m[2]}{REDACTED}", text)
    text = _URL_USER.sub(lambda m: f"{m[1]}{REDACTED}@", text)
    text = _JWT.sub(REDACTED, text)
    text = _SCHEME.sub(lambda m: f"{m[1]}{m[2]}{REDACTED}", text)
    text = _KNOWN_TOKEN.sub(REDACTED, text)
    return _ASSIGNED.sub(_assigned, text)


def _assigned(match: re.Match[str]) -> str:
    name, between, value = match[1], match[2], match[3]
    if _HARMLESS_NAME.match(name) and "=" not in between:
        return match[0]
    if REDACTED in value or value.strip("\"'").lower() in _NO_SECRETS:
        return match[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{name}{between}{quote}{REDACTED}{quote}"


def redact_object(body: Mapping[str, Any]) -> dict[str, Any]:
    """A Kubernetes object, or any JSON object, without secret values; shape and names are kept.

    Values of a Secret's `data` and `stringData` go whole (their keys stay), as do values of environment variables whose
    name says secret and of fields named so. All other text goes through `redact_text`.
    """
    cleaned: dict[str, Any] = _clean(body, None)
    if body.get("kind") == "Secret" and "apiVersion" in body:
        _hide_secret(body, cleaned)
    elif body.get("kind") in ("SecretList", "List") and isinstance(body.get("items"), list):
        for before, after in zip(body["items"], cleaned["items"], strict=True):
            if isinstance(before, Mapping) and (before.get("kind") == "Secret" or body.get("kind") == "SecretList"):
                _hide_secret(before, after)
    return cleaned


def _hide_secret(body: Mapping[str, Any], cleaned: dict[str, Any]) -> None:
    for section in ("data", "stringData"):
        if isinstance(body.get(section), Mapping):
            cleaned[section] = {str(key): REDACTED for key in body[section]}
    metadata = cleaned.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if isinstance(annotations, dict) and _LAST_APPLIED in annotations:
        annotations[_LAST_APPLIED] = REDACTED


def _clean(value: Any, name: str | None) -> Any:
    if isinstance(value, str):
        if not value:
            return value
        if name is not None and _says_secret(name):
            return REDACTED
        return _clean_json(value) if name == _LAST_APPLIED else redact_text(value)
    if isinstance(value, Mapping):
        cleaned = {str(k): _clean(v, str(k)) for k, v in value.items()}
        if isinstance(value.get("name"), str) and isinstance(value.get("value"), str) and _says_secret(value["name"]):
            cleaned["value"] = REDACTED  # an environment variable, a header of a probe, an argument of a workflow
        return cleaned
    if isinstance(value, (list, tuple)):
        return [_clean(v, None) for v in value]
    return value


def _clean_json(text: str) -> str:
    try:
        parsed = json.loads(text)
    except ValueError:
        return redact_text(text)
    if not isinstance(parsed, dict):
        return redact_text(text)
    return json.dumps(redact_object(parsed), separators=(",", ":"))


@lru_cache(maxsize=4096)
def _says_secret(name: str) -> bool:
    return name.lower() in _SECRET_HEADERS or (bool(_SECRET_NAME.match(name)) and not _HARMLESS_NAME.match(name))


def redact_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Header values with those of authentication and cookies removed."""
    return {
        name: REDACTED if name.lower() in _SECRET_HEADERS or _says_secret(name) else redact_text(value)
        for name, value in headers.items()
    }


def printable(data: bytes, limit: int = 256) -> str:
    """Bytes from a stranger as one line: text when it is text (secrets and control characters out), else hex."""
    data = data[:limit]
    text = data.decode("utf-8", errors="replace")
    odd = sum(not (c.isprintable() or c in "\r\n\t") for c in text) + text.count("\ufffd")
    if data and odd * 8 > len(text):
        return data.hex()
    return plain(redact_text(text))


def plain(text: str, limit: int | None = None) -> str:
    """Text with control characters (escape sequences, direction marks) made visible or dropped."""
    text = "".join(c if c.isprintable() else " " if c in "\r\n\t" else "\u00b7" for c in text)
    text = " ".join(text.split())
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "\u2026"
