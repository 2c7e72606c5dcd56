"""Names in `policy check`: a namespace is concluded where only one has the name, and asked for where several do."""

from __future__ import annotations

import subprocess
import sys

import pytest


def pod(name, namespace, ip):
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\n"
        f"spec: {{containers: [{{name: c, ports: [{{containerPort: 80}}]}}]}}\nstatus: {{phase: Running, podIP: {ip}}}\n---\n"
    )


@pytest.fixture
def objects(tmp_path):
    path = tmp_path / "objects.yaml"
    spaces = "".join(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {n}}}\n---\n" for n in ("shop", "web", "b"))
    path.write_text(
        spaces + pod("front", "web", "10.0.0.1") + pod("api", "shop", "10.0.0.2") + pod("twin", "web", "10.0.0.3")
        + pod("twin", "shop", "10.0.0.4") + pod("twin", "b", "10.0.0.5")
    )  # fmt: skip
    return path


def check(objects, *argv):
    return subprocess.run(
        [sys.executable, "-m", "mcdoctor", "policy", "check", *argv, "-f", str(objects)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_only_namespace_that_has_the_name(objects):
    ran = check(objects, "front", "api:80")
    assert ran.returncode == 0, ran.stderr
    assert "ALLOWED" in ran.stdout


def test_beside_the_source_first(objects):
    assert check(objects, "front", "twin:80").returncode == 0


def test_several_are_listed(objects):
    ran = check(objects, "twin", "api:80")
    assert ran.returncode == 2
    assert "twin.b, twin.shop, twin.web" in ran.stderr


def test_none_is_said(objects):
    ran = check(objects, "nobody", "api:80")
    assert ran.returncode == 3 and "nobody" in ran.stdout
