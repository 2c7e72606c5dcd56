"""Rooms endpoints and dns against the library: declared findings, their sentences and slots, their pages."""

from __future__ import annotations

import re

import pytest
from worlds import Case, cases

from mcdoctor.check import Check
from mcdoctor.models.facts import Absent, Blind, EndpointAnswer, KubeObject, Listed
from mcdoctor.models.outcome import Finding
from mcdoctor_checks import dns, endpoints
from mcdoctor_playbooks import load

ROOMS = {"dns": dns, "endpoints": endpoints}
ALL = [(room, case) for room in ROOMS for case in cases(room)]
SECTIONS = ("## What it does", "## Why it matters", "## What can go wrong", "## What it needs")


def _found(room: str, case: Case) -> list[tuple[Check, Finding]]:
    _, by_check = case.judged()
    return [(c, f) for c in ROOMS[room].CHECKS for f in by_check[c.id]]


@pytest.mark.parametrize(("room", "case"), ALL, ids=lambda x: getattr(x, "name", x))
def test_findings_are_declared_have_sentences_and_fill_their_slots(room: str, case: Case) -> None:
    library = load()
    for check, finding in _found(room, case):
        assert finding.id in check.findings, f"{check.id} does not declare {finding.id}"
        text = library.findings[finding.id].text
        for language in ("en", "ko"):
            slots = set(re.findall(r"\{(\w+)\}", text.in_language(language)))
            assert slots <= set(finding.args), f"{finding.id}: {slots - set(finding.args)} is not filled"
        assert finding.evidence or finding.severity == "note" or finding.id == "service-absent"


@pytest.mark.parametrize("room", ROOMS)
def test_each_declared_finding_occurs_in_some_case(room: str) -> None:
    seen = {f.id for r, case in ALL for _, f in _found(r, case)}
    declared = {i for c in ROOMS[room].CHECKS for i in c.findings}
    assert declared <= seen, sorted(declared - seen)


@pytest.mark.parametrize("room", ROOMS)
def test_judges_read_only_what_they_declare(room: str) -> None:
    always = {KubeObject, Listed, Absent, Blind, EndpointAnswer}
    for check in ROOMS[room].CHECKS:
        for case in cases(room):
            facts, _ = case.judged()
            facts.asked.clear()
            check.judge(facts)
            assert facts.asked - always <= check.may_read(), (check.id, case.name)


@pytest.mark.parametrize("check", [c for r in ROOMS.values() for c in r.CHECKS], ids=lambda c: c.id)
def test_each_check_has_a_page(check: Check) -> None:
    places = [check.doc.find(s) for s in SECTIONS]
    assert -1 not in places and places == sorted(places)


def test_each_cause_of_these_layers_is_first_in_some_case() -> None:
    """A cause that no case ends in could never be shown to work."""
    first = {c.report().diagnoses[0].cause.id for _, c in ALL if c.report().diagnoses}
    mine = {"dns-persistent-failure", "dns-flapping", "5xx-surge"}
    books = [b for s, b in load().playbooks.items() if s in mine]
    wanted = {c for b in books for c in b.causes if load().causes[c].layer in ("dns", "workload")}
    elsewhere = {"stale-endpoint-during-rollout"}  # rests on findings of room request
    assert wanted - elsewhere <= first, sorted(wanted - elsewhere - first)
