"""What kubectl is told when somebody presses the tab key."""

from __future__ import annotations

import json

import pytest

from mcdoctor.cli.completion import complete_for_kubectl


@pytest.fixture
def config(tmp_path, monkeypatch):
    path = tmp_path / "config"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "cluster-a",
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:9"}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": n, "context": {"cluster": "x", "user": "u"}} for n in ("cluster-a", "cluster-b")],
    }))  # fmt: skip
    monkeypatch.setenv("KUBECONFIG", str(path))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["di"], ["diagnose", ":4"]),
        (["diagnose", "--context", ""], ["cluster-a", "cluster-b", ":4"]),
        (["diagnose", "frontend", "backend@cluster-b"], ["backend@cluster-b", ":4"]),
        (["diagnose", "-n", "shop", "frontend", ""], [":4"]),
        (["diagnose", "a", "b", "--symptom", "dns-f"], ["dns-flapping", ":4"]),
        (["replay", ""], [":0"]),
        (["policy", "wh"], ["what-if", ":4"]),
        (["diagnose", "--to-c"], ["--to-context", ":4"]),
        ([], None),
    ],
)
def test_candidates(config, capsys, words, expected):
    assert complete_for_kubectl(words) == 0
    shown = capsys.readouterr().out.split()
    assert shown == expected if expected else "diagnose" in shown


def test_no_kubeconfig_is_silence(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    complete_for_kubectl(["diagnose", "--context", ""])
    assert capsys.readouterr().out == ":4\n"


def test_ids(capsys):
    complete_for_kubectl(["explain", "flow-pair"])
    assert capsys.readouterr().out == "flow-pair-resolves\n:4\n"
