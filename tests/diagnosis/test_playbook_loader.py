"""The loader is strict, and says where."""

from __future__ import annotations

import pytest

from mcdoctor.models.ids import Hop, Risk, Severity, Symptom
from mcdoctor_playbooks import BadPlaybook, load, read, slots

BOOK = """
symptom: no-route
title: {en: No route, ko: 경로 없음}
look: {en: Nothing arrives., ko: 아무것도 도착하지 않습니다.}
causes:
  - id: route-missing
    hop: network
    layer: l3
    summary: {en: "No route to {host}.", ko: "{host}로 가는 경로가 없습니다."}
    confirm: {en: Look at the table., ko: 라우팅 테이블을 확인합니다.}
    when_all: [no-route-found]
    remedies:
      - {text: {en: Add it., ko: 추가합니다.}, commands: ["ip route get {host}"], risk: none}
"""


def test_reads_everything() -> None:
    lib = read({"a.yaml": BOOK}, {"findings/a.yaml": "- {id: a-b, severity: note, text: {en: A, ko: 가}}"})
    cause = lib.causes["route-missing"]
    assert cause.hop is Hop.NETWORK
    assert cause.symptoms == (Symptom.NO_ROUTE,)
    assert cause.remedies[0].risk is Risk.NONE
    assert cause.summary.in_language("ko").startswith("{host}로")
    assert lib.playbooks[Symptom.NO_ROUTE].causes == ("route-missing",)
    assert lib.findings["a-b"].severity is Severity.NOTE


def test_a_cause_is_defined_once_and_used_elsewhere() -> None:
    other = "symptom: 5xx-surge\ntitle: {en: a, ko: b}\nlook: {en: a, ko: b}\ncauses: [{use: route-missing}]"
    lib = read({"a.yaml": other, "b.yaml": BOOK}, {})
    assert set(lib.causes["route-missing"].symptoms) == {Symptom.NO_ROUTE, Symptom.SURGE_5XX}


def test_named_symptoms_are_kept() -> None:
    lib = read({"a.yaml": BOOK.replace("layer: l3", "layer: l3\n    symptoms: [5xx-surge]")}, {})
    assert lib.causes["route-missing"].symptoms == (Symptom.SURGE_5XX,)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("layer: l3", "lair: l3"), "route-missing: unknown key lair"),
        (("symptom: no-route", "symptom: no-rout"), "symptom: 'no-rout' is none of"),
        (("hop: network", "hop: moon"), "route-missing: hop: 'moon'"),
        (("ko: 경로 없음", "kr: 경로 없음"), "title: unknown key kr"),
        (("{en: No route, ko: 경로 없음}", "{en: No route}"), "title: the language ko is missing"),
        (("ko: 경로 없음", "ko: ''"), "title.ko: expected text"),
        (("id: route-missing", "id: Route_Missing"), "'Route_Missing' is not an id"),
        (("id: route-missing", "id: 7"), "7 is not an id"),
        (("when_all: [no-route-found]", "when_all: no-route-found"), "when_all must be a list"),
        (("when_all: [no-route-found]", "when_all: [NoRoute]"), "when_all: 'NoRoute' is not an id"),
        (("    when_all: [no-route-found]\n", ""), "could never match"),
        (("{host}로", "거기로"), "slots differ between the languages: host"),
        (("risk: none", "risk: low"), "remedies: risk: 'low'"),
        (("layer: l3", "layer: l3\n    layer: l4"), "layer stands twice"),
        (("layer: l3", "layer: ''"), "layer is missing"),
        (("layer: l3", "layer: l3\n    supports: maybe"), "supports must be true or false"),
        (("causes:\n", "causes: []\nx:\n"), "unknown key x"),
        (("look:", "look: ["), "a.yaml:"),
    ],
)
def test_refuses(change: tuple[str, str], says: str) -> None:
    with pytest.raises(BadPlaybook) as error:
        read({"a.yaml": BOOK.replace(*change)}, {})
    assert "a.yaml" in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.yaml": "symptom: no-route\ntitle: {en: a, ko: b}\nlook: {en: a, ko: b}\ncauses: []"}, "at least one"),
        ({"a.yaml": BOOK, "b.yaml": BOOK}, "b.yaml: route-missing: is defined already"),
        ({"a.yaml": BOOK, "b.yaml": BOOK.replace("route-missing", "other-missing")}, "has a playbook already"),
        ({"a.yaml": BOOK + "  - use: nothing-here\n"}, "use: nothing-here is defined in no playbook"),
        ({"a.yaml": BOOK + "  - {use: nothing-here, hop: network}\n"}, "unknown key hop"),
        ({"a.yaml": BOOK + "  - use: route-missing\n"}, "route-missing: is listed twice"),
        ({"a.yaml": BOOK + "  - text\n"}, "a cause: must be a mapping"),
        ({"a.yaml": "- 1"}, "must be a mapping"),
    ],
)
def test_refuses_playbooks(files: dict[str, str], says: str) -> None:
    with pytest.raises(BadPlaybook, match=says):
        read(files, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: b", "must be a list"),
        ("- {id: a-b, text: {en: A}}", "a-b: text: the language ko"),
        ("- {id: a-b, text: {en: A, ko: 가}, sev: x}", "unknown key sev"),
        ("- {id: a-b, text: {en: A, ko: 가}}\n- {id: a-b, text: {en: A, ko: 가}}", "has a sentence already"),
        ("- 1", "a sentence: must be a mapping"),
    ],
)
def test_refuses_sentences(text: str, says: str) -> None:
    with pytest.raises(BadPlaybook, match=says):
        read({}, {"findings/a.yaml": text})


def test_slots() -> None:
    assert slots("from {a_b} to {c}, {{not}} {D}") == {"a_b", "c"}


def test_the_packages_own_playbooks_load() -> None:
    assert load() is load()
