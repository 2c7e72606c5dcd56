"""What is installed is what is in the tree: the three packages, playbooks, scenarios, schema; it runs from elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = (".yaml", ".json", ".jsonl", ".typed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check", "-w", str(place), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode:
        pytest.fail(built.stderr[-2000:])
    return next(place.glob("*.whl"))


def test_every_module_and_data_file_is_in_it(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for base, package in (("", "mcdoctor"), ("checks", "mcdoctor_checks"), ("playbooks", "mcdoctor_playbooks")):
        top = ROOT / base if base else ROOT
        for path in (top / package).rglob("*"):
            if path.suffix in (".py", *DATA) and "__pycache__" not in path.parts:
                assert str(path.relative_to(top)) in inside


def test_it_runs_installed_elsewhere(wheel, tmp_path):
    place = tmp_path / "env"
    venv.create(place, with_pip=False, system_site_packages=True)
    site = next((place / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    ran = subprocess.run(
        [place / "bin/python", "-P", "-c",
         "import mcdoctor, mcdoctor_checks, mcdoctor_playbooks; from mcdoctor.runner.registry import load;"
         "print(mcdoctor.__file__); print(len(load().checks), len(mcdoctor_playbooks.load().causes))"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": ":".join(p for p in sys.path if "site-packages" in p), "PATH": ""},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    where, counts = ran.stdout.splitlines()
    assert where.startswith(str(site))
    assert all(int(n) > 0 for n in counts.split())


def test_both_commands_are_there(wheel):
    names = zipfile.ZipFile(wheel).read(next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("entry_points.txt"))).decode()
    assert "mcdoctor = mcdoctor.__main__:main" in names
    assert "kubectl-mcdoctor = mcdoctor.__main__:main" in names
    assert "kubectl_complete-mcdoctor = mcdoctor.__main__:complete" in names


def test_the_schema_is_json(wheel):
    archive = zipfile.ZipFile(wheel)
    schema = json.loads(archive.read("mcdoctor/reports/report.schema.json"))
    assert schema["$schema"]


def test_every_dependency_of_the_command_line_is_declared():
    declared = {d.split(">")[0].split(";")[0].strip().lower() for d in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]}
    assert {"typer", "rich", "kubernetes", "dnspython", "scapy", "cryptography", "pyyaml", "pyroute2"} <= declared
