"""The smallest change as `mcdoctor policy check` prints it, and `what-if` on what was printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from policy_build import namespace, obj, pod
from typer.testing import CliRunner

from mcdoctor.cli.policy import app

WORLD = [
    namespace("shop"),
    namespace("data"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1"),
    pod("shop", "batch", {"app": "web", "role": "batch"}, ip="10.0.0.3"),
    pod("data", "db", {"app": "db"}, ip="10.0.0.2", ports={"sql": 5432}),
]
CLOSED = obj("projectcalico.org/v3", "GlobalNetworkPolicy", None, "closed", {"selector": "app == 'db'"})
DENIES = obj(
    "projectcalico.org/v3",
    "GlobalNetworkPolicy",
    None,
    "no",
    {"selector": "app == 'db'", "ingress": [{"action": "Deny"}]},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "world"
    found.mkdir()
    (found / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [*WORLD, CLOSED]}))
    return found


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout


def printed(text: str) -> str:
    """The full object out of the text: what is indented as a document."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("  apiVersion:"))
    end = next(n for n, line in enumerate(lines[start:], start) if not line.startswith("  "))
    return "\n".join(line[2:] for line in lines[start:end])


def test_the_text_has_the_object_and_what_else_it_opens(folder: Path) -> None:
    code, out = run("check", "web.shop", "pod/db.data:5432", "-f", str(folder))
    assert code == 1
    assert "smallest change, ingress in cluster" in out and "(calico): add a rule for pod shop/web on TCP 5432" in out
    assert "(also opens 1 other pair)" in out
    assert "  also allowed: pod shop/batch to pod data/db on TCP 5432" in out
    assert out.rstrip().endswith("with it: allowed")
    raw = yaml.safe_load(printed(out))
    assert raw["kind"] == "GlobalNetworkPolicy" and raw["spec"]["ingress"][0]["action"] == "Allow"


def test_what_was_printed_does_what_it_says(folder: Path, tmp_path: Path) -> None:
    _, out = run("check", "web.shop", "pod/db.data:5432", "-f", str(folder))
    change = tmp_path / "change.yaml"
    change.write_text(printed(out))
    code, out = run("what-if", "-f", str(change), "--bundle", str(folder), "--port", "5432")
    assert code == 1
    assert sorted(out.strip().splitlines()) == [
        "TCP 5432  shop/batch to data/db: 1 denied becomes 1 allowed",
        "TCP 5432  shop/web to data/db: 1 denied becomes 1 allowed",
    ]


def test_in_korean(folder: Path) -> None:
    code, out = run("check", "web.shop", "pod/db.data:5432", "-f", str(folder), "--lang", "ko")
    assert code == 1 and out.startswith("거부됩니다")
    assert "가장 작은 변경, 들어오는 방향" in out and "다른 쌍 1개도 함께 열립니다" in out
    assert "함께 허용됨: pod shop/batch to pod data/db" in out and "적용하면: 허용됩니다" in out
    assert "smallest" not in out and "opens" not in out


def test_as_json_in_both_languages(folder: Path) -> None:
    _, out = run("check", "web.shop", "pod/db.data:5432", "-f", str(folder), "-o", "json")
    change = json.loads(out)["change"]
    assert change["verdict"] == "allowed"
    side = change["sides"][0]
    assert (side["direction"], side["layer"], side["deliberate"]) == ("ingress", "calico", [])
    best = side["options"][0]
    assert (best["opensPairs"], best["opensAddresses"], best["counted"]) == (1, 0, "exactly")
    assert best["examples"] == ["pod shop/batch to pod data/db on TCP 5432"]
    assert best["objects"] == [best["object"]] and "규칙을 추가합니다" in best["ko"]


@pytest.mark.parametrize(("lang", "said"), [("en", "refused on purpose by"), ("ko", "의도적으로 거부하므로")])
def test_what_is_refused_on_purpose_is_said_to_be(tmp_path: Path, lang: str, said: str) -> None:
    (tmp_path / "all.json").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": [*WORLD, DENIES]}))
    code, out = run("check", "web.shop", "pod/db.data:5432", "-f", str(tmp_path), "--lang", lang)
    assert code == 1 and said in out and "apiVersion" not in out
