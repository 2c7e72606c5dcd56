"""Secrets leave text and objects when a fact is built; what only sounds like one stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.models.redact import REDACTED, plain, printable, redact_headers, redact_object, redact_text

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJlLXZhbHVl"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize("text, secret", [
    (f"Authorization: Bearer {JWT}", JWT), (f"token {JWT} end", JWT), (KEY, "MIIEow"), (KEY[:60], "MIIEow"),
    ("https://admin:s3cr3tpw@registry.example/v2", "s3cr3tpw"), ("postgres://u:p%40ss@db:5432/x", "p%40ss"),
    ("Basic YWRtaW46cGFzc3dvcmQ=", "YWRtaW46"), ("password=hunter22", "hunter22"),
    ('"client_secret": "abc123def"', "abc123def"),
    ("AWS key AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"), ("DB_PASSWORD: 'correct horse'", "correct horse"),
    ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "ghp_0123"), ("set-cookie: sid=abcdef; Path=/", "abcdef"),
    ("API_KEY=zzz-yyy-xxx", "zzz-yyy-xxx"), ("x?access_token=abcdefgh&y=1", "abcdefgh"),
])  # fmt: skip
def test_secrets_go(text: str, secret: str) -> None:
    assert secret not in redact_text(text)
    assert REDACTED in redact_text(text)
    assert redact_text(redact_text(text)) == redact_text(text)


@pytest.mark.parametrize("text", [
    "", "connection refused", "Basic authentication failed", "GET /api/v1/pods 200", "secretName: backend-tls",
    "http://backend.shop.svc:8080/ready?x=1", "no healthy upstream", "tls: bad certificate",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "spiffe://cluster.local/ns/shop/sa/backend",
    "upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
])  # fmt: skip
def test_everything_else_stays(text: str) -> None:
    assert redact_text(text) == text


def test_a_secret_keeps_its_keys_only() -> None:
    applied = json.dumps({"kind": "Secret", "data": {"password": "aHVudGVyMg=="}})
    body = {
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "db", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
        "data": {"password": "aHVudGVyMg==", "user": "YWRtaW4="}, "stringData": {"x": "plain-value"},
    }  # fmt: skip
    clean = redact_object(body)
    assert clean["metadata"]["name"] == "db"
    assert clean["data"] == {"password": REDACTED, "user": REDACTED}
    assert not any(s in json.dumps(clean) for s in ("aHVudGVyMg==", "YWRtaW4=", "plain-value"))
    listed = redact_object({"apiVersion": "v1", "kind": "List", "items": [body, {"kind": "Service"}]})
    assert "YWRtaW4=" not in json.dumps(listed)
    assert listed["items"][1] == {"kind": "Service"}


def test_objects_keep_what_a_diagnosis_needs() -> None:
    body = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "annotations": {"a": "b"}},
        "spec": {"automountServiceAccountToken": True, "template": {"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "ports": [{"containerPort": 80}], "env": [
                {"name": "DB_PASSWORD", "value": "hunter22"}, {"name": "PORT", "value": "8080"},
                {"name": "API_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
                {"name": "TOKEN_PATH", "value": "/var/run/token"}, {"name": "URL", "value": "http://u:pw123@x/"}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}]}}},
    }  # fmt: skip
    clean = redact_object(body)
    spec = clean["spec"]["template"]["spec"]
    assert [e.get("value") for e in spec["containers"][0]["env"]] == [
        REDACTED, "8080", None, "/var/run/token", f"http://{REDACTED}@x/",
    ]  # fmt: skip
    assert spec["containers"][0]["env"][2]["valueFrom"] == {"secretKeyRef": {"name": "s", "key": "token"}}
    assert spec["volumes"] == [{"name": "v", "secret": {"secretName": "s"}}]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert clean["spec"]["automountServiceAccountToken"] is True
    assert body["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] == "hunter22"  # type: ignore[index]


def test_headers() -> None:
    clean = redact_headers({"Authorization": "Bearer x", "X-Api-Key": "1", "Accept": "*/*", "X-Auth-Token": "t"})
    assert clean == {"Authorization": REDACTED, "X-Api-Key": REDACTED, "Accept": "*/*", "X-Auth-Token": REDACTED}


def test_strangers_bytes_become_one_harmless_line() -> None:
    assert printable(b"220 hello\r\n") == "220 hello"
    assert printable(b"\x15\x03\x01\x00\x02\x02\x28") == "15030100020228"
    assert "\x1b" not in plain("\x1b[31mred\x1b[0m\u202e")
    assert plain("a" * 50, 10) == "a" * 9 + "\u2026"


@given(st.text(max_size=400))
def test_any_text_is_taken(text: str) -> None:
    redact_text(text)
    assert all(c.isprintable() for c in plain(text))


@given(st.binary(max_size=400))
def test_any_bytes_are_taken(data: bytes) -> None:
    assert all(c.isprintable() for c in printable(data))


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
                    max_leaves=20))  # fmt: skip
def test_any_object_is_taken(value: object) -> None:
    json.dumps(redact_object({"kind": "X", "value": value}))


def test_long_text_costs_little() -> None:
    import time

    begun = time.monotonic()
    for text in ("a." * 100_000, "token" * 20_000, "a_-" * 60_000, "http" * 50_000, "eyJ" * 60_000):
        redact_text(text)
    assert time.monotonic() - begun < 5.0
