"""The target grammar: examples, and properties over generated targets."""

from __future__ import annotations

import ipaddress
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.flow.target import TargetError, parse_target, settle


@pytest.mark.parametrize(
    ("text", "form", "name", "kind", "namespace", "port", "context"),
    [
        ("frontend", "object", "frontend", None, None, None, None),
        ("deploy/frontend", "object", "frontend", "Deployment.apps", None, None, None),
        ("svc/backend.app:80", "object", "backend", "Service", "app", "80", None),
        ("backend.app:http@cluster-b", "object", "backend", None, "app", "http", "cluster-b"),
        (
            "backend@arn:aws:eks:eu-west-1:1:cluster/prod",
            "object", "backend", None, None, None, "arn:aws:eks:eu-west-1:1:cluster/prod",
        ),
        ("backend@admin@cluster-b", "object", "backend", None, None, None, "admin@cluster-b"),
        ("backend.app.svc.clusterset.local", "host", "backend.app.svc.clusterset.local", None, None, None, None),
        ("backend.app.global:8080", "host", "backend.app.global", None, None, "8080", None),
        ("example.", "host", "example", None, None, None, None),
        ("https://api.example.org/v1?x=1", "host", "api.example.org", None, None, "443", None),
        ("http://10.0.0.1:8080/", "address", "10.0.0.1", None, None, "8080", None),
        ("10.0.0.1", "address", "10.0.0.1", None, None, None, None),
        ("10.0.0.1:443@b", "address", "10.0.0.1", None, None, "443", "b"),
        ("fd00::1", "address", "fd00::1", None, None, None, None),
        ("[fd00::1]:80", "address", "fd00::1", None, None, "80", None),
    ],
)  # fmt: skip
def test_examples(text, form, name, kind, namespace, port, context):
    target = parse_target(text)
    assert (target.form, target.name, target.kind, target.namespace, target.port, target.context) == (
        form, name, kind, namespace, port, context,
    )  # fmt: skip


def test_one_dot_is_a_host_where_there_is_no_such_namespace():
    assert settle(parse_target("example.com:443"), {"app"}.__contains__).form == "host"
    assert settle(parse_target("example.com:443"), {"app"}.__contains__).name == "example.com"
    assert settle(parse_target("backend.app"), {"app"}.__contains__).namespace == "app"
    assert settle(parse_target("svc/backend.nowhere"), {"app"}.__contains__).form == "object"


@pytest.mark.parametrize(
    "text",
    ["", " ", "@b", "backend@", "backend:0", "backend:65536", "backend:", "cron/backend", "Backend", "a\nb", "a\x1b[31m",
     "http://", "ftp://x/", "http://x:99999/", "tcp://x", "-a", "a..b", "svc/", "backend:8080:9"],
)  # fmt: skip
def test_refused_in_one_line(text):
    with pytest.raises(TargetError) as refused:
        parse_target(text)
    assert "\n" not in str(refused.value)


_label = st.from_regex(r"\A[a-z]([-a-z0-9]{0,20}[a-z0-9])?\Z")
_context = st.text(string.ascii_letters + string.digits + ":/@._-", min_size=1, max_size=40)


@given(_label, st.none() | _label, st.none() | st.integers(1, 65535), st.none() | _context, st.sampled_from(["", "svc/", "po/"]))
def test_what_was_put_together_comes_apart(name, namespace, port, context, kind):
    text = kind + name + (f".{namespace}" if namespace else "")
    text += (f":{port}" if port else "") + (f"@{context}" if context else "")
    target = parse_target(text)
    assert target.text == text
    assert target.form == "object"
    assert (target.name, target.namespace) == (name, namespace)
    assert target.port == (str(port) if port else None)
    assert target.context == context


@given(st.ip_addresses(), st.none() | st.integers(1, 65535))
def test_addresses(address, port):
    text = f"[{address}]" if address.version == 6 and port else str(address)
    target = parse_target(text + (f":{port}" if port else ""))
    assert target.form == "address"
    assert ipaddress.ip_address(target.name) == address


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_refused(text):
    try:
        target = parse_target(text)
    except TargetError as error:
        assert "\n" not in str(error)
    else:
        assert target.name
        assert target.port is None or target.port.isdigit() is False or 1 <= int(target.port) <= 65535


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(TargetError) as refused:
        parse_target("https://user:hunter2@example.com/")
    assert "hunter2" not in str(refused.value)
