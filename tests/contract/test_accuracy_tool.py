"""The measure itself: what counts as right, wrong and silent."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy_tool", Path(__file__).parents[1] / "accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accuracy_tool"] = module
    spec.loader.exec_module(module)
    return module


def answer(verdict: str, *causes: tuple[str, str], errors: int = 0) -> dict[str, Any]:
    found = [{"severity": "error"}] * errors
    return {
        "verdict": verdict,
        "causes": [{"id": i, "certainty": c} for i, c in causes],
        "checks": [{"findings": found}],
    }


@pytest.mark.parametrize(
    ("verdict", "causes", "report", "rank", "right", "wrong", "silent"),
    [
        ("broken", ("a-b",), answer("broken", ("a-b", "proved")), 1, True, (), None),
        ("broken", ("a-b",), answer("degraded", ("c-d", "supported"), ("a-b", "possible")), 2, False, ("c-d",), None),
        ("broken", ("a-b",), answer("broken", ("c-d", "possible")), 0, True, (), None),
        ("broken", ("a-b", "c-d"), answer("broken", ("a-b", "proved"), ("c-d", "supported")), 1, True, (), None),
        ("healthy", (), answer("healthy"), None, True, (), True),
        ("healthy", (), answer("healthy", ("a-b", "possible")), None, True, (), False),
        ("healthy", (), answer("degraded", errors=1), None, False, (), False),
        ("inconclusive", (), answer("inconclusive"), None, True, (), None),
    ],
)
def test_score(
    tool: ModuleType,
    verdict: str,
    causes: tuple[str, ...],
    report: dict[str, Any],
    rank: int | None,
    right: bool,
    wrong: tuple[str, ...],
    silent: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tool, "run", lambda _case, live: ("recording", report))
    got = tool.score(tool.Case("x", Path(), verdict, causes), live=False)
    assert (got.rank, got.verdict, got.wrong, got.silent) == (rank, right, wrong, silent)


def test_one_wrong_cause_with_confidence_is_below_the_floor(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(*reports: dict[str, Any]) -> list[Any]:
        out = []
        for report in reports:
            monkeypatch.setattr(tool, "run", lambda _case, live, report=report: ("recording", report))
            out.append(tool.score(tool.Case("x", Path(), "broken", ("a-b",)), live=False))
        return out

    good = answer("broken", ("a-b", "proved"))
    assert tool.misses(scores(good)) == []
    below = tool.misses(scores(*[good] * 30, answer("broken", ("a-b", "proved"), ("c-d", "supported"))))
    assert below == ["wrong with confidence: 1 of 31, the floor is 0%"]


def test_a_case_that_cannot_run_is_a_miss(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_case: Any, live: bool) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(tool, "run", fails)
    got = tool.score(tool.Case("x", Path(), "broken", ("a-b",)), live=False)
    assert "x could not be run: no such thing" in tool.misses([got])
    assert "no such thing" in tool.table([got])
