"""Facts as JSON lines: the recording, the test case and the wire, one format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mcdoctor.models.codec import Malformed, decode, encode
from mcdoctor.models.facts import KINDS, Blind, Fact
from mcdoctor.models.vantage import Vantage


def to_record(fact: Fact) -> dict[str, Any]:
    """The JSON object of a fact, `kind` first."""
    return {"kind": type(fact).KIND, **encode(fact)}


def to_line(fact: Fact) -> str:
    return json.dumps(to_record(fact), ensure_ascii=False, separators=(",", ":"))


def from_record(record: Mapping[str, Any]) -> Fact:
    """The fact of a JSON object. A kind this build does not know is a Blind; a wrong shape raises Malformed."""
    if not isinstance(record, Mapping):
        raise Malformed("a fact is a JSON object")
    kind = record.get("kind")
    if not isinstance(kind, str):
        raise Malformed("kind is missing")
    cls = KINDS.get(kind)
    if cls is None:
        vantage = record.get("vantage")
        return Blind(
            at=_time(record.get("at")),
            vantage=decode(Vantage, vantage) if isinstance(vantage, Mapping) else Vantage(),
            wanted=kind,
            about=kind,
            reason=f"this build does not know facts of kind {kind!r}",
        )
    fact: Fact = decode(cls, record)
    return fact


def _time(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
