"""Rules that hold for every check, finding, cause and playbook: code and playbooks are one set."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from mcdoctor.check import Check
from mcdoctor.diagnosis import END_TO_END
from mcdoctor.docsgen import missing_sections
from mcdoctor.flow import FINDINGS as FLOW_FINDINGS
from mcdoctor.flow import resolve
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Absent, Blind, EndpointAnswer, Fact, Listed
from mcdoctor.models.ids import Symptom, slug
from mcdoctor.models.outcome import Failed, Unknown, findings
from mcdoctor.models.playbook import Cause, Text
from mcdoctor.models.report import Report
from mcdoctor.reports import render
from mcdoctor.runner.bundle import Bundle, read_bundle
from mcdoctor.runner.replay import replay, request_of
from mcdoctor_checks import CHECKS
from mcdoctor_playbooks import load, slots

ROOT = Path(__file__).parents[2]
LIBRARY = load()
ALWAYS: frozenset[type[Fact]] = frozenset({Blind, Absent, Listed, EndpointAnswer})
DECLARED = {f for c in CHECKS for f in c.findings}
HANGUL = re.compile(r"[가-힣]")


def recordings() -> list[Path]:
    """Bundles with facts: the lab's scenarios and the recorded cases."""
    folders = [*(ROOT / "mcdoctor/lab/scenarios").glob("*"), *(ROOT / "tests/cases").glob("*")]
    return sorted(f for f in folders if any(f.glob("facts/*.jsonl")))


@cache
def bundle(folder: Path) -> Bundle:
    return read_bundle(folder)


@cache
def report(folder: Path) -> Report:
    return replay(bundle(folder), CHECKS, LIBRARY, request_of(bundle(folder)))


def facts_of(folder: Path) -> Facts:
    """Fresh facts of a recording, which remember nothing yet."""
    read = bundle(folder)
    flow = resolve(request_of(read), Facts(read.facts, None, read.complete))
    return Facts(read.facts, flow, read.complete)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
class TestChecks:
    def test_ids_are_slugs(self, check: Check) -> None:
        assert slug(check.id) == check.id
        assert [slug(f) for f in check.findings] == list(check.findings)
        assert len(set(check.findings)) == len(check.findings)

    def test_the_documentation_has_its_four_sections(self, check: Check) -> None:
        assert missing_sections(check) == ()
        assert check.title
        assert not check.title.endswith(".")

    def test_every_finding_has_its_sentence(self, check: Check) -> None:
        assert [f for f in check.findings if f not in LIBRARY.findings] == []

    def test_it_proves_causes_that_exist(self, check: Check) -> None:
        assert [c for c in check.proves if c not in LIBRARY.causes] == []
        for name in check.proves:
            cause = LIBRARY.causes[name]
            settling = {*cause.proved_by, *cause.wants, *cause.against, *cause.unless}
            assert settling & set(check.findings), f"{name} gains nothing from it"

    def test_facts_read_are_facts_declared(self, check: Check) -> None:
        """With nothing there, and with every recording."""
        for facts in (Facts(), *(facts_of(f) for f in recordings())):
            facts.asked.clear()
            check.judge(facts)
            assert facts.asked - ALWAYS <= {*check.needs, *check.uses, *check.gives}

    def test_nothing_is_no_reason_to_find_something(self, check: Check) -> None:
        """Without a single fact a check fails nothing and passes nothing that it could not see."""
        assert not isinstance(check.judge(Facts()), Failed)

    def test_it_emits_only_what_it_declares(self, check: Check) -> None:
        for folder in recordings():
            outcome = check.judge(facts_of(folder))
            assert {f.id for f in findings(outcome)} <= set(check.findings), folder.name


def test_check_ids_are_unique() -> None:
    assert [i for i, n in Counter(c.id for c in CHECKS).items() if n > 1] == []


def test_the_request_itself_is_a_check() -> None:
    """No verdict is healthy without it."""
    assert END_TO_END in {c.id for c in CHECKS}


def test_sentences_belong_to_findings() -> None:
    assert sorted(set(LIBRARY.findings) - DECLARED - set(FLOW_FINDINGS)) == []


@pytest.mark.parametrize("cause", LIBRARY.causes.values(), ids=lambda c: c.id)
class TestCauses:
    def test_findings_that_it_names_can_be_found(self, cause: Cause) -> None:
        named = {*cause.when_all, *cause.when_any, *cause.against, *cause.unless, *cause.proved_by, *cause.wants,
                 *cause.explains}  # fmt: skip
        assert sorted(named - DECLARED - set(FLOW_FINDINGS)) == []

    def test_it_does_not_contradict_itself(self, cause: Cause) -> None:
        needed = {*cause.when_all, *cause.when_any}
        assert not needed & {*cause.against, *cause.unless}
        assert not set(cause.proved_by) & {*cause.against, *cause.unless}

    def test_it_belongs_to_a_symptom_that_has_a_playbook(self, cause: Cause) -> None:
        assert cause.symptoms
        assert [s for s in cause.symptoms if s not in LIBRARY.playbooks] == []

    def test_it_says_what_to_do(self, cause: Cause) -> None:
        assert cause.remedies

    def test_texts_are_in_their_languages(self, cause: Cause) -> None:
        texts = [cause.summary, cause.confirm, *(r.text for r in cause.remedies)]
        assert [t.en for t in texts if HANGUL.search(t.en)] == []
        assert [t.ko for t in texts if not HANGUL.search(t.ko)] == []


def _texts() -> Iterator[tuple[str, Text]]:
    for name, finding in LIBRARY.findings.items():
        yield name, finding.text
    for symptom, book in LIBRARY.playbooks.items():
        yield symptom.value, book.title
        yield symptom.value, book.look


def test_other_texts_are_in_their_languages() -> None:
    assert [name for name, t in _texts() if HANGUL.search(t.en) or not HANGUL.search(t.ko)] == []


def test_symptoms_of_findings_have_playbooks() -> None:
    seen = {f.symptom for folder in recordings() for r in report(folder).ran for f in findings(r.outcome) if f.symptom}
    assert sorted(seen - set(LIBRARY.playbooks)) == []


@pytest.mark.parametrize("symptom", LIBRARY.playbooks, ids=lambda s: s.value)
def test_a_playbook_is_named_after_its_symptom(symptom: Symptom) -> None:
    assert (ROOT / "playbooks/mcdoctor_playbooks" / f"{symptom.value}.yaml").is_file()


@pytest.mark.parametrize("folder", recordings(), ids=lambda f: f.name)
class TestRecordings:
    def test_every_slot_is_filled(self, folder: Path) -> None:
        """A report with `<host>` in it has a text whose slot no finding fills."""
        made = report(folder)
        named = {
            s for t in (*(t for _, t in _texts()), *(c.summary for c in LIBRARY.causes.values())) for s in slots(t.en)
        }
        for language in ("en", "ko"):
            missing = dict.fromkeys(i for d in made.diagnoses for i in d.missing)
            printed = render(made, "markdown", language, library=LIBRARY)
            kept = [
                row for row in printed.splitlines() if "확정에 필요한 것" not in row and "Would settle it" not in row
            ]
            found = re.findall(r"&lt;([a-z_]+)&gt;", "\n".join(kept))
            assert [s for s in found if s in named] == [], missing

    def test_nothing_went_wrong_inside(self, folder: Path) -> None:
        reasons = [r.outcome.reason for r in report(folder).ran if isinstance(r.outcome, Unknown)]
        assert [r for r in reasons if "failed: " in r and ("judge" in r or "probe" in r)] == []

    def test_the_order_of_facts_does_not_matter(self, folder: Path) -> None:
        read = bundle(folder)
        turned = dataclasses.replace(read, facts=tuple(reversed(read.facts)))
        again = replay(turned, CHECKS, LIBRARY, request_of(turned))
        made = report(folder)
        assert again.verdict is made.verdict
        assert [(d.cause.id, d.certainty) for d in again.diagnoses] == [
            (d.cause.id, d.certainty) for d in made.diagnoses
        ]
