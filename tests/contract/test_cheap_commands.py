"""Commands that need nothing heavy import nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "kubernetes", "scapy", "dns", "cryptography", "requests", "urllib3", "yaml", "pyroute2", "mcdoctor_checks",
    "mcdoctor_playbooks",
}  # fmt: skip

PROGRAM = """
import json, sys
from mcdoctor.cli.app import run
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    run(json.loads(sys.argv[1]))
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["version"], ["diagnose", "--help"], ["explain", "--help"], ["nonsense"]], ids=" ".join
)
def test_imports(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert sorted(m for m in HEAVY if m in modules) == []


def test_the_library_does_not_need_the_cluster_or_the_wire() -> None:
    """Replay reads YAML and judges; it has no use for the adapters' libraries."""
    program = (
        "import sys, mcdoctor_checks, mcdoctor_playbooks, mcdoctor.runner.replay, mcdoctor.reports.text;"
        "mcdoctor_playbooks.load(); print(sorted(m for m in ('kubernetes', 'scapy', 'dns', 'pyroute2', 'typer')"
        " if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
