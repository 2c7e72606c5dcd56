"""Questions and answers as JSON lines; documents from text; the command over bundles and files."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_build import namespace, network_policy, node, one, pod, service
from policy_worlds import small
from typer.testing import CliRunner

from mcdoctor.cli.errors import CommandError
from mcdoctor.cli.policy import app
from mcdoctor.policy.batch import answer_line, answers
from mcdoctor.policy.documents import parse

WORLD = (
    namespace("shop"),
    node("n1", "172.16.0.1"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1"),
    pod("shop", "api", {"app": "api"}, ip="10.0.0.2", ports={"http": 8080}),
    service("shop", "api", {"app": "api"}, [{"port": 80, "targetPort": "http"}]),
    network_policy(
        "shop", "api", {"podSelector": {"matchLabels": {"app": "api"}}, "ingress": [{"ports": [{"port": 8080}]}]}
    ),
)
WEB = {"pod": "shop/web"}
KEYS = ["id", "verdict", "egress", "ingress", "deciding", "reason"]


def asked(**question: Any) -> dict[str, Any]:
    return answer_line(one(*WORLD), json.dumps({"id": 1, "source": WEB, **question}))


def test_an_answer_has_exactly_the_agreed_form() -> None:
    answer = asked(destination={"service": "shop/api"}, port=80, protocol="TCP")
    assert list(answer) == KEYS
    assert answer["deciding"] == [
        {"kind": "NetworkPolicy", "namespace": "shop", "name": "api", "pointer": "/spec/ingress/0", "direction": "ingress", "effect": "allow"}
    ]  # fmt: skip
    assert (answer["id"], answer["verdict"], answer["egress"], answer["ingress"]) == (
        1,
        "allowed",
        "allowed",
        "allowed",
    )


@pytest.mark.parametrize(
    ("question", "verdict"),
    [
        ({"destination": {"pod": "shop/api", "cluster": "a"}, "port": 8080}, "allowed"),
        ({"destination": {"pod": "shop/api"}, "port": "http"}, "allowed"),
        ({"destination": {"pod": "shop/api"}, "port": "8081"}, "denied"),
        ({"destination": {"ip": "10.0.0.2"}, "port": 8081}, "denied"),
        ({"destination": {"ip": "8.8.8.8"}, "port": 53, "protocol": "udp"}, "allowed"),
        ({"destination": {"fqdn": "Example.com."}, "port": 443}, "allowed"),
        ({"destination": {"node": "n1"}, "port": 10250}, "allowed"),
        ({"destination": {"pod": "shop/api"}, "icmp": {"family": "IPv4", "type": 8}}, "unknown"),
        (
            {
                "destination": {"pod": "shop/api"},
                "port": 8080,
                "http": {"method": "GET", "path": "/", "headers": {"X": "y"}},
            },
            "allowed",
        ),
        ({"destination": {"pod": "shop/api"}, "port": 8080, "mtls": True, "principal": "x", "via": None}, "allowed"),
        ({"source": {"ip": "198.51.100.1"}, "destination": {"pod": "shop/api"}, "port": 1}, "denied"),
        ({"source": {"node": "n1"}, "destination": {"pod": "shop/api"}, "port": 1}, "allowed"),
    ],
)
def test_every_form_of_a_question(question: dict[str, Any], verdict: str) -> None:
    assert asked(**question)["verdict"] == verdict


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ({}, "/destination: required value"),
        ({"destination": {"pod": "shop/api"}, "port": 99999}, "/port: must be a port number or name"),
        ({"destination": {"pod": "shop/api"}, "protocol": "IPX"}, "/protocol"),
        ({"destination": {"ip": "10.0.0"}}, "/destination/ip"),
        ({"destination": {"pod": "shop/api"}, "source": {"service": "shop/api"}}, "/source"),
        ({"destination": {"pod": "shop/api"}, "mtls": "yes"}, "/mtls: must be a boolean"),
        ({"destination": {"pod": "shop/none"}}, "no pod or workload shop/none"),
        ({"destination": {"pod": "shop/api", "cluster": "zz"}}, "no cluster zz"),
        ({"destination": {"service": "shop/none"}}, "no Service shop/none"),
        ({"destination": {"pod": "shop/api"}, "via": "carrier pigeon"}, "carrier pigeon"),
    ],
)
def test_what_is_no_question_is_answered_unknown_with_the_reason(question: dict[str, Any], why: str) -> None:
    answer = asked(**question)
    assert (list(answer), answer["verdict"], answer["id"]) == (KEYS, "unknown", 1)
    assert why in answer["reason"]


def test_one_answer_a_line_in_order_whatever_the_lines_hold() -> None:
    lines = [
        "nonsense",
        "[]",
        "",
        json.dumps({"id": "x", "source": WEB, "destination": {"pod": "shop/api"}, "port": 8080}),
    ]
    found = [json.loads(line) for line in answers(one(*WORLD), lines)]
    assert [(a["id"], a["verdict"]) for a in found] == [(None, "unknown"), (None, "unknown"), ("x", "allowed")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["n0/p0", "n1/p1", "10.0.0.1"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["pod", "ip", "node", "service", "fqdn", "cluster", "type", "family"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)
FIELDS = ["id", "source", "destination", "port", "protocol", "icmp", "http", "mtls", "principal", "via"]


@settings(max_examples=300, deadline=None)
@given(question=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8))
def test_no_question_raises(question: dict[str, Any]) -> None:
    question = {"source": {"pod": "n0/p0"}, "destination": {"pod": "n1/p1"}, "port": 80} | question
    answer = answer_line(one(*small(random.Random(5))), json.dumps(question))
    assert list(answer) == KEYS
    assert answer["verdict"] in ("allowed", "denied", "conditional", "unknown")


# --- text to documents ---------------------------------------------------------------------------------------------


def test_yaml_documents_carry_their_lines_and_a_broken_one_leaves_the_others() -> None:
    text = "# head\na: 1\n---\nb: [\n---\n\nc: 2001-01-01T00:00:00Z\n"
    documents, problems = parse(text, "x.yaml")
    assert [(d.object, d.line) for d in documents] == [({"a": 1}, 2), ({"c": "2001-01-01T00:00:00Z"}, 7)]
    assert [(p.file, p.line) for p in problems] == [("x.yaml", 5)]


def test_json_and_json_lines() -> None:
    assert parse('{"a":\n 1,}', "x.json")[1][0].line == 2
    documents, problems = parse('{"a": 1}\nnope\n{"b": 2}\n', "x.jsonl")
    assert [(d.object, d.line) for d in documents] == [({"a": 1}, 1), ({"b": 2}, 3)]
    assert [p.line for p in problems] == [2]


def test_hostile_yaml_is_refused() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    assert parse(f"l0: &l0 [x]\n{levels}\n", "bomb.yaml")[1]
    assert parse("a: &a [*a]\n", "loop.yaml")[1]
    assert parse("!!python/object/apply:os.system [true]\n", "code.yaml")[1]
    assert parse("[" * 5000, "deep.json")[1]


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    objects = folder / "clusters" / "a" / "objects"
    objects.mkdir(parents=True)
    (folder / "bundle.yaml").write_text(
        "apiVersion: mcdoctor.dev/v1\nkind: Bundle\nclusters: [{name: a, context: ctx-a, role: source}]\n"
    )
    (objects / "pods.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "PodList", "items": [o for o in WORLD if o["kind"] == "Pod"]})
    )
    (objects / "rest.jsonl").write_text("\n".join(json.dumps(o) for o in WORLD if o["kind"] != "Pod"))
    (objects / "broken.yaml").write_text("a: b\n c: d\n---\nkind: NetworkPolicy\n")
    return folder


def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert isinstance(result.exception, CommandError), result.exception
        return result.exception.code, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


def test_batch_over_a_bundle(bundle: Path) -> None:
    questions = "\n".join(
        json.dumps({"id": n, "source": WEB, "destination": {"pod": "shop/api"}, "port": 8079 + n}) for n in (1, 2)
    )
    code, out, err = run("check", "--queries", "-", "--bundle", str(bundle), "-o", "jsonl", stdin=questions)
    assert code == 0
    assert [(a["id"], a["verdict"]) for a in map(json.loads, out.splitlines())] == [(1, "allowed"), (2, "denied")]
    assert "clusters/a/objects/broken.yaml:2" in err


def test_a_cluster_goes_by_its_context_too(bundle: Path) -> None:
    questions = "\n".join(
        json.dumps({"id": name, "source": WEB | {"cluster": name}, "destination": {"pod": "shop/api"}, "port": 8080})
        for name in ("a", "ctx-a", "b")
    )
    _, out, _ = run("check", "--queries", "-", "--bundle", str(bundle), "-o", "jsonl", stdin=questions)
    assert [a["verdict"] for a in map(json.loads, out.splitlines())] == ["allowed", "allowed", "unknown"]


def test_a_tar_archive_reads_like_its_folder_and_one_that_escapes_is_refused(bundle: Path, tmp_path: Path) -> None:
    archive = tmp_path / "b.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(bundle, "incident")
    assert run("check", "web.shop", "pod/api.shop:8080", "--bundle", str(archive))[0] == 0
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("../evil.yaml")
        tar.addfile(member, io.BytesIO(b""))
    code, _, err = run("check", "web.shop", "pod/api.shop:8080", "--bundle", str(archive))
    assert code == 2 and "would leave the folder" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("web.shop", "svc/api.shop:80"), 0, "ALLOWED"),
        (("web.shop", "api:80", "-n", "shop"), 0, "ALLOWED"),
        (("web.shop", "pod/api.shop:81"), 1, "smallest change"),
        (("web.shop", "pod/api.shop", "--protocol", "ICMP"), 3, "UNKNOWN"),
        (("web.shop", "pod/nothing.shop:81"), 3, "no pod or workload shop/nothing"),
        (("198.51.100.3", "pod/api.shop:8080@ctx-a"), 0, "ALLOWED"),
    ],
)
def test_check_one_pair(bundle: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, out, _ = run("check", *arguments, "--bundle", str(bundle))
    assert (found, said in out) == (code, True), out


def test_check_as_json_carries_hops_and_the_change(bundle: Path) -> None:
    code, out, _ = run("check", "web.shop", "pod/api.shop:81", "--bundle", str(bundle), "-o", "json")
    body = json.loads(out)
    assert code == 1
    assert body["change"]["verdict"] == "allowed"
    assert [hop["direction"] for hop in body["hops"]] == ["egress", "ingress"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "web.shop"), "SRC and DST are needed"),
        (("check", "web.shop", "api", "--bundle", "/nowhere/at/all"), "no such file or folder"),
        (("check", "--queries", "/nowhere/q.jsonl", "--bundle", "."), "No such file or directory"),
    ],
)
def test_usage_errors_are_one_line(arguments: tuple[str, ...], said: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2 and said in err


def test_matrix_what_if_and_explain(bundle: Path, tmp_path: Path) -> None:
    code, out, _ = run("matrix", "--bundle", str(bundle), "--port", "81", "-o", "csv")
    assert code == 0
    assert "81,TCP,shop/web,shop/api,0,1,0,0" in out.replace("\r", "")
    change = tmp_path / "open.json"
    change.write_text(
        json.dumps(network_policy("shop", "more", {"podSelector": {}, "ingress": [{"ports": [{"port": 81}]}]}))
    )
    code, out, _ = run("what-if", "-f", str(change), "--bundle", str(bundle), "--port", "81")
    assert code == 1 and "TCP 81  shop/web to shop/api: 1 denied becomes 1 allowed" in out
    code, out, _ = run("explain", "web.shop", "pod/api.shop:81", "--bundle", str(bundle), "--lang", "ko")
    assert code == 1 and "거부됩니다" in out
