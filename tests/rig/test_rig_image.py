"""The debug image of the Containerfile, built without Docker, on a node: it starts, is nobody, and has byte code."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path

import pytest
from mcrig import build
from mcrig import rig as rigs
from mcrig.binaries import RigUnavailable
from mcrig.program import diagnose

pytestmark = pytest.mark.timeout(180)

CONTAINERFILE = Path(__file__).resolve().parents[2] / "Containerfile"
IMAGE = "registry.rig/mcdoctor-debug:1"
# prints the user, and for a module what its byte code says of itself: 1 is a hash that is not checked
LOOK = "import os, json; d = open(json.__cached__, 'rb').read(8); print(os.getuid(), int.from_bytes(d[4:], 'little'))"


def test_the_recipe_is_read_as_it_is_written() -> None:
    recipe = build.read(CONTAINERFILE.read_text())
    assert recipe.base == "docker.io/library/python:3-slim"
    assert recipe.user.partition(":")[0].isdigit() and int(recipe.user.partition(":")[0]) > 0
    (run,) = recipe.runs
    assert "compileall" in run and "\\" not in run
    with pytest.raises(ValueError, match="unknown instruction: COPY"):
        build.read("FROM x\nCOPY . .\n")


@pytest.fixture(scope="module")
def image(rig: rigs.Rig) -> str:
    try:
        archive = build.build(CONTAINERFILE, IMAGE)
    except RigUnavailable as why:
        pytest.skip(f"the debug image cannot be built here: {why}")
    rig.a.import_image(archive)
    return IMAGE


@pytest.mark.rig
def test_a_pod_that_must_not_be_root_runs_it_without_naming_a_user(rig: rigs.Rig, image: str) -> None:
    name = f"image-{secrets.token_hex(3)}"
    context = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container = {"name": "c", "image": image, "command": ["python3", "-I", "-c", LOOK], "securityContext": context}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    rig.a.apply(json.dumps(pod))
    try:
        until = time.monotonic() + 40
        while (phase := rig.a.kubectl("get", "pod", "-n", "demo", name, "-o", "jsonpath={.status.phase}")) not in (
            "Succeeded",
            "Failed",
        ):
            assert time.monotonic() < until, phase
            time.sleep(0.3)
        assert rig.a.kubectl("logs", "-n", "demo", name) == "65532 1\n"
    finally:
        rig.a.kubectl("delete", "pod", "-n", "demo", name, "--wait=false")


@pytest.mark.rig
def test_a_diagnosis_from_it(clean_rig: rigs.Rig, image: str) -> None:
    run = diagnose(clean_rig, "frontend", "backend", "--image", image)
    assert (run.report["verdict"], run.code) == ("healthy", 0), run.told
    assert f"(image {image})" in run.stderr
    pods = json.loads(clean_rig.a.kubectl("get", "pods", "-n", "demo", "-l", "app=frontend", "-o", "json"))["items"]
    used = [c for pod in pods for c in pod["spec"].get("ephemeralContainers", ()) if c["image"] == image]
    assert used and all(c["securityContext"]["runAsUser"] == 65532 for c in used)
