"""`explain`, `checks` and `playbooks` know every id there is."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from mcdoctor.cli import explain
from mcdoctor.cli.errors import CommandError
from mcdoctor.docsgen import main as docsgen
from mcdoctor.models.ids import Symptom
from mcdoctor_checks import CHECKS
from mcdoctor_playbooks import load

LIBRARY = load()
IDS = sorted({*(c.id for c in CHECKS), *LIBRARY.findings, *LIBRARY.causes, *(s.value for s in Symptom)})


def invoke(*arguments: str) -> str:
    app = typer.Typer(add_completion=False)
    explain.register(app)
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_id_has_a_page(language: str) -> None:
    for name in IDS:
        page = explain.explain_page(name, language)
        assert page.startswith(f"# {name}")
        assert len(page.splitlines()) > 1


def test_a_cause_is_explained_with_its_evidence_and_remedy() -> None:
    page = invoke("explain", "service-not-exported", "--lang", "ko")
    assert "destination-not-exported" in page
    assert "ServiceExport를 만듭니다" in page
    assert "kind: ServiceExport" in page


def test_a_finding_names_its_check_and_its_causes() -> None:
    page = invoke("explain", "destination-not-exported")
    assert "flow-pair-resolves" in page
    assert "service-not-exported" in page


def test_an_unknown_id_ends_with_the_nearest_ones() -> None:
    with pytest.raises(CommandError, match="is no check") as ended:
        explain.explain_page("service-not-exportet", "en")
    assert ended.value.code == 2
    assert "service-not-exported" in ended.value.hint
    with pytest.raises(CommandError) as ended:
        explain.explain_page("zzzz", "en")
    assert "mcdoctor checks" in ended.value.hint


def test_lists() -> None:
    listed = json.loads(invoke("checks", "-o", "json"))
    assert [c["id"] for c in listed] == [c.id for c in CHECKS]
    assert all(c.id in invoke("checks") for c in CHECKS)
    books = json.loads(invoke("playbooks", "-o", "json"))
    assert {b["symptom"] for b in books} == set(LIBRARY.playbooks)
    assert all({"id", "hop", "summary", "remedies"} <= set(c) for b in books for c in b["causes"])
    assert all(name in invoke("playbooks", "--lang", "ko") for name in LIBRARY.causes)


def test_docsgen_refuses_other_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert docsgen(["--wrong"]) == 2
    assert "usage" in capsys.readouterr().err
