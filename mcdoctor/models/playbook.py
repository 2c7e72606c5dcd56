"""Playbooks as data: symptoms with their causes, and the sentences of findings, in English and Korean.

Texts may hold slots in braces, filled from the finding's args and from the flow (`{source}`, `{destination}`,
`{host}`, `{port}`, `{namespace}`, `{source_cluster}`, `{destination_cluster}`, `{subject}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mcdoctor.models.ids import Hop, Risk, Severity, Symptom

Language = str
LANGUAGES: tuple[Language, ...] = ("en", "ko")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One text in both languages."""

    en: str
    ko: str

    def in_language(self, language: Language) -> str:
        return self.ko if language == "ko" else self.en


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What to do: printed, never run. `object` is a full manifest where one is the answer."""

    text: Text
    commands: tuple[str, ...] = ()
    risk: Risk = Risk.REVERSIBLE
    object: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why. Matches on finding ids.

    `when_all`: each must be present. `when_any`: at least one (where the list is not empty). `against`: a present one
    makes the cause at most possible and is shown. `unless`: a present one removes the cause. `proved_by`: any of these
    proves it. `wants`: finding ids that would settle it; shown as missing when they are not there. `explains`: finding
    ids that are consequences of this cause and need no cause of their own.
    """

    id: str
    hop: Hop
    layer: str
    summary: Text
    confirm: Text
    remedies: tuple[Remedy, ...] = ()
    symptoms: tuple[Symptom, ...] = ()
    when_all: tuple[str, ...] = ()
    when_any: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    proved_by: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    supports: bool = field(
        default=True, metadata={"doc": "false: matching evidence alone never makes it more than possible"}
    )
    refs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Playbook:
    """One symptom: what people see, and the ids of its causes in the order in which to suspect them."""

    symptom: Symptom
    title: Text
    look: Text
    causes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingText:
    """The sentence of a finding id; slots as in the finding's args.

    `wanted`: what to look for where the finding would settle a cause and was not made; slots of the flow only.
    """

    id: str
    text: Text
    wanted: Text | None = None
    severity: Severity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """All playbooks, causes and finding sentences."""

    playbooks: Mapping[Symptom, Playbook] = field(default_factory=dict)
    causes: Mapping[str, Cause] = field(default_factory=dict)
    findings: Mapping[str, FindingText] = field(default_factory=dict)
