"""Secrets are taken out when a fact is built, so that a live run and its recording see the same. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MARK = "[redacted]"

_SECRET_NAME = re.compile(
    r"(?i)(pass(word|wd|phrase)?|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|psk|auth)"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MARK),
    (re.compile(r"(?i)\b(bearer|basic|negotiate)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {MARK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?"), MARK),
    (re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+@"), f"{MARK}@"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"), MARK),
    (
        re.compile(
            r"(?i)\b([\w.-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|preshared[_-]?key)"
            r"[\w.-]*[\"']?\s*[=:]\s*)(\"[^\"\n]+\"|'[^'\n]+'|[^\s,;&\"'{}\[\]]{4,})"
        ),
        rf"\1{MARK}",
    ),
)
_SUSPECT = re.compile(
    r"-----BEGIN|[Bb](?:earer|asic) |[Nn]egotiate |eyJ[A-Za-z0-9_-]{8}|://[^/\s:@]*:[^/\s@]+@|AKIA|ASIA"
    r"|(?i:password|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|preshared[_-]?key)[\w.-]*[\"']?\s*[=:]"
)
_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-auth-token",
        "x-amz-security-token",
    }
)
_DROPPED_ANNOTATIONS = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})


def suspicious(text: str) -> bool:
    """Whether a text may hold a secret; a quick look that lets large files skip the walk."""
    return _SUSPECT.search(text) is not None


def redact_text(text: str) -> str:
    """The text without private keys, bearer and basic credentials, JWTs, passwords in URLs and `password=` values."""
    if not suspicious(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Header names in lower case; the values of those that carry credentials replaced."""
    return {k.lower(): MARK if k.lower() in _HEADERS else redact_text(v) for k, v in headers.items()}


def redact_object(body: Mapping[str, Any], *, clean: bool = False) -> dict[str, Any]:
    """A Kubernetes object without secret values, managedFields and last-applied-configuration.

    Secret data keeps its keys. `clean`: the caller has looked at the whole text and it is not suspicious.
    """
    redacted: dict[str, Any] = dict(body)
    metadata = redacted.get("metadata")
    if isinstance(metadata, Mapping):
        redacted["metadata"] = _metadata(metadata)
    if redacted.get("kind") == "Secret":
        for key in ("data", "stringData"):
            if isinstance(redacted.get(key), Mapping):
                redacted[key] = dict.fromkeys(redacted[key], MARK)
        return redacted
    if clean and redacted.get("kind") not in ("Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"):
        return redacted
    return {k: v if clean and k in ("metadata", "status") else _walk(v, clean) for k, v in redacted.items()}


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in metadata.items() if k != "managedFields"}
    annotations = kept.get("annotations")
    if isinstance(annotations, Mapping) and _DROPPED_ANNOTATIONS & annotations.keys():
        kept["annotations"] = {k: v for k, v in annotations.items() if k not in _DROPPED_ANNOTATIONS}
    return kept


def _walk(value: Any, clean: bool) -> Any:
    if isinstance(value, str):
        return value if clean else redact_text(value)
    if isinstance(value, Mapping):
        name = value.get("name")
        if isinstance(name, str) and isinstance(value.get("value"), str) and _SECRET_NAME.search(name):
            return {**{k: _walk(v, clean) for k, v in value.items()}, "value": MARK}
        return {k: _walk(v, clean) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(v, clean) for v in value]
    return value
