"""Kubeconfig: what kubectl accepts is accepted, and everything else is one clear line."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest
import yaml

from mcdoctor.kube import config
from mcdoctor.kube.config import connect, contexts
from mcdoctor.kube.errors import KubeConfigError
from mcdoctor.kube.reader import ApiReader


def entry(name: str, **user) -> dict:
    return {
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example:6443"}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}],
    }


def write(path, document) -> str:
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return str(path)


def test_several_files_are_one_search_path_and_the_first_to_say_wins(tmp_path):
    one = write(tmp_path / "one", {**entry("a"), "current-context": "a"})
    two = write(tmp_path / "two", {**entry("b"), "current-context": "b"})
    clash = write(tmp_path / "clash", {"clusters": [{"name": "a", "cluster": {"server": "https://wrong"}}]})
    known = contexts(environ={"KUBECONFIG": os.pathsep.join([one, str(tmp_path / "missing"), two, clash])})
    assert known.names() == ("a", "b") and known.current == "a"
    assert known.named("a").server == "https://a.example:6443"
    assert known.named(None).namespace == "ns-a"


def test_without_kubeconfig_the_home_folder_is_looked_in(tmp_path):
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", {**entry("a"), "current-context": "a"})
    assert contexts(environ={"HOME": str(tmp_path)}).current == "a"


def test_inside_a_pod_the_service_account_is_the_context(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("shop\n")
    monkeypatch.setattr(config, "_SERVICE_ACCOUNT", tmp_path)
    environ = {"HOME": str(tmp_path), "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    known = contexts(environ=environ)
    assert known.current == "in-cluster"
    assert known.named(None).namespace == "shop" and known.named(None).server == "https://[fd00::1]:443"


def test_an_unknown_context_names_the_known_ones_and_the_nearest(tmp_path):
    path = write(tmp_path / "c", {**entry("cluster-a"), "current-context": "gone"})
    with pytest.raises(KubeConfigError, match=r"no context 'cluster-b' \(did you mean cluster-a\?\); known: cluster-a"):
        contexts(path).named("cluster-b")
    with pytest.raises(KubeConfigError, match="no context 'gone'"):
        connect(kubeconfig=path)


def test_no_current_context_asks_for_one(tmp_path):
    with pytest.raises(KubeConfigError, match="no current context is set; choose one with --context: a"):
        contexts(write(tmp_path / "c", entry("a"))).named(None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clusters: [\nusers: x: y", r":2 is not YAML"),
        ("- a\n- b\n", "is not a kubeconfig"),
        ("contexts: {}\n", None),
        ("contexts: nope\n", "contexts is not a list"),
        ("contexts: [{context: {}}]\n", "entry 1 of contexts has no name"),
        ("users: [{name: a, user: [1]}]\n", "user of 'a' in users is not an object"),
        ("\x00\x01binary", "is not YAML"),
        ("[" * 3000, "is not YAML"),
    ],
)
def test_a_malformed_file_names_itself_and_the_line(tmp_path, text, says):
    path = write(tmp_path / "c", text)
    if says is None:
        assert contexts(path).all == ()
        return
    with pytest.raises(KubeConfigError, match=says) as caught:
        contexts(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_is_said_with_the_way_out(tmp_path):
    with pytest.raises(KubeConfigError, match=r"no kubeconfig: .*missing does not exist; give --kubeconfig"):
        contexts(str(tmp_path / "missing"))
    with pytest.raises(KubeConfigError, match="no kubeconfig"):
        contexts(environ={"KUBECONFIG": os.pathsep})


def test_an_unreadable_file_is_said(tmp_path, monkeypatch):
    path = write(tmp_path / "c", {})

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(KubeConfigError, match="cannot be read: Permission denied"):
        contexts(path)


@pytest.mark.parametrize(
    "user",
    [
        {"client-certificate": "/nowhere.pem"},
        {"client-certificate-data": "abc"},
        {"tokenFile": "/nowhere"},
        {"exec": "nonsense"},
        {"auth-provider": {"name": "oidc", "config": {}}},
    ],
)
def test_credentials_that_cannot_be_loaded_are_one_line(tmp_path, user):
    path = write(tmp_path / "c", {**entry("a", **user), "current-context": "a"})
    with pytest.raises(KubeConfigError, match="context 'a'") as caught:
        connect(kubeconfig=path)
    assert "\n" not in str(caught.value)


def test_a_certificate_that_is_none_is_one_line_at_the_first_request(fake):
    path = fake.kubeconfig(**{"client-certificate-data": "AAAA", "client-key-data": "AAAA"})
    with pytest.raises(KubeConfigError, match=r"cluster here .*TLS with 127\.0\.0\.1") as caught:
        ApiReader(connect(kubeconfig=str(path), request_timeout=2)).check()
    assert "\n" not in str(caught.value)


def test_a_server_that_the_kubeconfig_does_not_trust_is_not_talked_to(fake, tmp_path):
    document = yaml.safe_load(fake.kubeconfig().read_text())
    del document["clusters"][0]["cluster"]["certificate-authority"]
    path = write(tmp_path / "c", document)
    with pytest.raises(KubeConfigError, match="certificate verify failed"):
        ApiReader(connect(kubeconfig=path, request_timeout=2)).check()
    assert fake.requests == []
    document["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    fake.route("/version", {"gitVersion": "v1"})
    assert ApiReader(connect(kubeconfig=write(tmp_path / "c", document), request_timeout=2)).check() == "v1"


@pytest.mark.parametrize(
    "cluster",
    [
        {"server": "https://"},
        {"server": "https://host:port"},
        {"server": "https://[::1"},
        {"server": "nonsense"},
        {"server": ""},
        {"server": "https://127.0.0.1:1", "proxy-url": "socks5://127.0.0.1:1"},
        {"server": "https://127.0.0.1:1", "proxy-url": "nonsense"},
        {"server": "https://127.0.0.1:1", "certificate-authority": "/nowhere"},
        {"server": "https://127.0.0.1:1", "certificate-authority-data": "AAAA"},
        {"server": 7},
    ],
)
def test_a_server_that_cannot_be_asked_is_one_line(tmp_path, cluster):
    document = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        "current-context": "c",
    }
    with pytest.raises(KubeConfigError) as caught:
        ApiReader(connect(kubeconfig=write(tmp_path / "c", document), request_timeout=2)).check()
    assert "\n" not in str(caught.value)


def test_a_context_without_its_cluster(tmp_path):
    document = {"contexts": [{"name": "a", "context": {"cluster": "gone", "user": "u"}}], "current-context": "a"}
    with pytest.raises(KubeConfigError, match="context 'a'"):
        connect(kubeconfig=write(tmp_path / "c", document))


def plugin(tmp_path, body: str) -> dict:
    script = tmp_path / "plugin"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), "interactiveMode": "Never"}
    }


CREDENTIAL = (
    '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "from-plugin"}}'
)


def test_a_credential_plug_in_gives_the_token(tmp_path, fake):
    fake.route("/version", {"gitVersion": "v1"})
    path = fake.kubeconfig(**plugin(tmp_path, f"echo '{CREDENTIAL}'"))
    connect(kubeconfig=str(path), request_timeout=2).get("/version")
    assert fake.requests[-1].header("Authorization") == ["Bearer from-plugin"]


def test_an_expired_token_of_a_plug_in_is_renewed(tmp_path, fake):
    fake.route("/version", {"gitVersion": "v1"})
    expired = CREDENTIAL.replace('"token"', '"expirationTimestamp": "2020-01-01T00:00:00Z", "token"')
    counter = tmp_path / "count"
    path = fake.kubeconfig(**plugin(tmp_path, f"echo x >> {counter}; echo '{expired}'"))
    api = connect(kubeconfig=str(path), request_timeout=2)
    api.get("/version")
    assert counter.read_text().count("x") == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo 'please log in' >&2; exit 1", "please log in"),
        ("echo garbage", "failed to decode"),
        ("echo '{}'", "malformed response"),
        (f"echo '{CREDENTIAL.replace('token', 'other')}'", "missing token"),
    ],
)
def test_a_plug_in_that_fails_is_one_line_and_nothing_is_logged(tmp_path, capfd, body, says):
    path = write(tmp_path / "c", {**entry("a", **plugin(tmp_path, body)), "current-context": "a"})
    handlers = logging.getLogger().handlers[:]
    with pytest.raises(KubeConfigError, match=rf"context 'a': the credential plug-in .* failed: .*{says}"):
        connect(kubeconfig=path)
    assert logging.getLogger().handlers == handlers
    assert capfd.readouterr().err == ""


def test_a_plug_in_that_is_not_installed(tmp_path):
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin"}}
    path = write(tmp_path / "c", {**entry("a", **user), "current-context": "a"})
    with pytest.raises(KubeConfigError, match="no-such-plugin failed"):
        connect(kubeconfig=path)


def test_impersonation_of_the_kubeconfig_and_of_the_flags(fake):
    fake.route("/version", {"gitVersion": "v1"})
    user = {"token": "t", "as": "kate", "as-groups": ["g"], "as-uid": "7", "as-user-extra": {"scope": ["x", "y"]}}
    path = str(fake.kubeconfig(**user))
    connect(kubeconfig=path, request_timeout=2).get("/version")
    seen = fake.requests[-1]
    assert seen.header("Impersonate-User") == ["kate"] and seen.header("Impersonate-Uid") == ["7"]
    assert seen.header("Impersonate-Extra-scope") == ["x", "y"]
    connect(kubeconfig=path, as_user="jane", request_timeout=2).get("/version")
    assert fake.requests[-1].header("Impersonate-User") == ["jane"]
    assert fake.requests[-1].header("Impersonate-Group") == []
    with pytest.raises(KubeConfigError, match="--as-group needs --as"):
        connect(kubeconfig=path, as_groups=["g"])


def test_secrets_of_the_kubeconfig_do_not_show_in_a_repr(tmp_path):
    path = write(tmp_path / "c", {**entry("a", token="t0psecret"), "current-context": "a"})
    assert "t0psecret" not in repr(contexts(path))
