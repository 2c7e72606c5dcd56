"""Runs the tests: those of the rig first where it can run (and says so when it cannot), then all others with coverage.

Ends with pytest's own summary. Exit code: that of the first run that failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
COVERED = (
    "mcdoctor/models/*,mcdoctor/diagnosis/*,mcdoctor/flow/*,mcdoctor/policy/*,"
    "checks/mcdoctor_checks/*/judge.py,checks/mcdoctor_checks/*/facts.py,checks/mcdoctor_checks/dns/corefile.py"
)
FLOOR = 90


def run(*command: str, **environment: str) -> int:
    print("+", *command, flush=True)
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=False).returncode


def rig() -> int:
    """The rig's tests from a warm cache; a cold one would cost half an hour, so it only says how to warm it."""
    available = subprocess.run(
        [sys.executable, "-m", "mcrig", "available"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": "tests/rig"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if available.returncode:
        print("THE RIG TESTS DID NOT RUN:", (available.stdout + available.stderr).strip(), flush=True)
        print("(make rig-build fills the cache)", flush=True)
        return 0
    return run(str(BIN / "pytest"), "-q", "-m", "rig", "tests/rig", "--timeout=600", "--no-header")


def main() -> int:
    first = rig()
    pytest = (str(BIN / "pytest"), "-q", "--no-header", "--timeout=300", "--cov", "--cov-branch", "--cov-report=")
    second = run(*pytest, "-m", "not rig and not lab", "-n", "auto")
    # namespaces, packets and time are shared: these run one after another, last, so that pytest's summary ends it all
    covered = run(str(BIN / "coverage"), "report", f"--include={COVERED}", f"--fail-under={FLOOR}", "--skip-covered", "-m")
    third = run(str(BIN / "pytest"), "-q", "--no-header", "--timeout=300", "-m", "lab")
    return first or second or covered or third


if __name__ == "__main__":
    sys.exit(main())
