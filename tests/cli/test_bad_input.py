"""Bad input: one clear line on stderr, nothing on stdout, the right exit code, never a traceback."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tarfile

import pytest

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: backend, namespace: app}\nspec: {ports: [{port: 80}], clusterIP: 10.96.0.1}\n"
FRONTEND = (
    "apiVersion: v1\nkind: Pod\nmetadata: {name: frontend, namespace: app, labels: {app: frontend}}\n"
    "status: {phase: Running, podIP: 10.1.0.1, conditions: [{type: Ready, status: 'True'}]}\n"
)


def mcdoctor(*argv, **environment):
    ran = subprocess.run(
        [sys.executable, "-m", "mcdoctor", *map(str, argv)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "NO_COLOR": "1", **environment},
    )  # fmt: skip
    assert "Traceback" not in ran.stderr + ran.stdout
    return ran


def error(ran, code):
    assert ran.returncode == code, ran.stderr
    assert ran.stdout == ""
    lines = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ran.stderr
    return ran.stderr


@pytest.fixture
def bundle(tmp_path):
    place = tmp_path / "bundle/clusters/a/objects"
    place.mkdir(parents=True)
    (place / "objects.yaml").write_text(SERVICE + "---\n" + FRONTEND)
    return tmp_path / "bundle"


@pytest.fixture
def kubeconfig(tmp_path):
    """Two contexts: one whose server nobody listens at, one that refuses to be a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "config"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "dead",
        "clusters": [{"name": "dead", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "hunter2"}}],
        "contexts": [{"name": "dead", "context": {"cluster": "dead", "user": "u"}}],
    }))  # fmt: skip
    return path


def test_no_kubeconfig(tmp_path):
    said = error(mcdoctor("diagnose", "frontend", "backend", KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path)), 2)
    assert "kubeconfig" in said.lower()


def test_unknown_context(kubeconfig):
    assert "dead" in error(mcdoctor("diagnose", "frontend", "backend", "--kubeconfig", kubeconfig, "--context", "deat"), 2)


def test_dead_api_server(kubeconfig):
    said = error(mcdoctor("diagnose", "frontend", "backend", "--kubeconfig", kubeconfig, "--request-timeout", "2s"), 3)
    assert "hunter2" not in said


def test_malformed_kubeconfig(tmp_path):
    (tmp_path / "config").write_text("clusters: [\n")
    error(mcdoctor("diagnose", "frontend", "backend", "--kubeconfig", tmp_path / "config"), 2)


def test_no_such_name_anywhere(bundle):
    assert "Did you mean backend?" in error(mcdoctor("diagnose", "frontend", "bakend", "--bundle", bundle), 2)
    assert "Did you mean frontend?" in error(mcdoctor("diagnose", "fronted", "backend", "--bundle", bundle), 2)


def test_ambiguous_name(bundle):
    (bundle / "clusters/a/objects/more.yaml").write_text(FRONTEND.replace("namespace: app", "namespace: other"))
    assert "frontend.app or frontend.other" in error(mcdoctor("diagnose", "frontend", "backend", "--bundle", bundle), 2)


def test_port_not_on_the_service(bundle):
    assert "it has 80" in error(mcdoctor("diagnose", "frontend", "backend:81", "--bundle", bundle), 2)


@pytest.mark.parametrize("target", ["", "a\x1b[31mb", "cron/x", "backend:99999", "Backend", "backend@"])
def test_bad_targets(bundle, target):
    assert "\x1b" not in error(mcdoctor("diagnose", "frontend", target, "--bundle", bundle), 2)


def test_broken_bundles(bundle, tmp_path):
    error(mcdoctor("diagnose", "frontend", "backend", "--bundle", tmp_path / "none"), 2)
    (tmp_path / "x.tar").write_bytes(b"not a tar")
    error(mcdoctor("replay", tmp_path / "x.tar", "frontend", "backend"), 2)
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        member = tarfile.TarInfo("../../evil.yaml")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    assert "refused" in error(mcdoctor("replay", tmp_path / "evil.tar", "frontend", "backend"), 2)
    (bundle / "clusters/a/objects/bad.yaml").write_text("kind: Service\n  metadata: {\n")
    ran = mcdoctor("replay", bundle, "frontend", "backend", "-o", "json")
    assert ran.returncode in (1, 3)
    assert "bad.yaml:2" in ran.stderr
    assert json.loads(ran.stdout)["verdict"] in ("inconclusive", "broken", "degraded")


def test_a_bundle_without_a_pair_asks_for_it(bundle):
    assert "SRC and DST" in error(mcdoctor("replay", bundle), 2)


def test_hostile_strings_reach_no_terminal(bundle):
    evil = FRONTEND.replace("app: frontend", 'app: frontend, note: "\\e]0;owned\\a\\u202e[bold]x"')
    (bundle / "clusters/a/objects/objects.yaml").write_text(SERVICE + "---\n" + evil)
    for form in ("text", "markdown"):
        ran = mcdoctor("replay", bundle, "frontend", "backend", "-o", form, "-v")
        assert "\x1b" not in ran.stdout and "\u202e" not in ran.stdout and "\x07" not in ran.stdout


def test_unwritable_output(bundle, tmp_path):
    assert "does not exist" in error(mcdoctor("replay", bundle, "frontend", "backend", "--out", tmp_path / "no/dir/x"), 2)
    error(mcdoctor("replay", bundle, "frontend", "backend", "--out", tmp_path), 2)


@pytest.mark.parametrize(
    "argv",
    [["--symptom", "sadness"], ["--request", "/x y z"], ["--header", "novalue"], ["--lab", "nope"], ["--request-timeout", "soon"],
     ["--probe", "magic"], ["-o", "xml"], ["--lab", "default", "--bundle", "x"]],
)  # fmt: skip
def test_bad_options(argv, kubeconfig):
    extra = [] if "--lab" in argv else ["--kubeconfig", kubeconfig]
    error(mcdoctor("diagnose", "frontend", "backend", *argv, *extra), 2)


@pytest.mark.parametrize("form", ["text", "json", "yaml", "markdown"])
def test_the_exit_code_does_not_depend_on_the_format(bundle, form):
    assert mcdoctor("replay", bundle, "frontend", "backend", "-o", form).returncode == 3


def test_json_is_only_json(bundle):
    ran = mcdoctor("diagnose", "frontend", "backend", "--bundle", bundle, "-o", "json", "-v")
    assert json.loads(ran.stdout)["schemaVersion"] == "1"


def test_a_closed_pipe_is_no_error(bundle):
    ran = subprocess.run(
        f"{sys.executable} -m mcdoctor replay {bundle} frontend backend -v | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in ran.stderr and "error" not in ran.stderr
