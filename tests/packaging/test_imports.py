"""Cheap commands stay cheap: told by the modules they import, not by a stopwatch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"kubernetes", "scapy", "dns", "cryptography", "requests", "httpx", "yaml", "pyroute2", "urllib3", "mcdoctor_checks"}
RUN_THEN_PRINT_MODULES = """
import sys
from mcdoctor.cli.app import run
run({!r})
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("argv", [["--help"], ["version"], ["diagnose", "--help"], ["policy", "--help"], ["lab", "--help"], ["diagnose", "x"]])
def test_cheap_commands_import_nothing_heavy(argv):
    ran = subprocess.run(
        [sys.executable, "-c", RUN_THEN_PRINT_MODULES.format(argv)], capture_output=True, text=True, check=True
    )
    assert not HEAVY & {name.partition(".")[0] for name in ran.stderr.split()}


def test_the_version_is_a_literal():
    import mcdoctor

    ran = subprocess.run([sys.executable, "-m", "mcdoctor", "version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"mcdoctor {mcdoctor.__version__}\n"
    assert ran.stderr == ""
