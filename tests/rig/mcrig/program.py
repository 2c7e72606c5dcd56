"""Runs mcdoctor against the rig as a user would: its own process, its own kubeconfig, its exit code and its JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mcrig.rig import Rig


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run of the program. `report` is what it printed as JSON."""

    code: int
    report: dict[str, Any]
    stderr: str

    @property
    def limits(self) -> str:
        """What could not be seen, as text."""
        return json.dumps(self.report["limits"])

    @property
    def causes(self) -> list[str]:
        return [cause["id"] for cause in sorted(self.report["causes"], key=lambda cause: cause["rank"])]

    @property
    def told(self) -> str:
        """What a failing test shows."""
        checks = [
            f"{check['id']} {check['outcome']} {check.get('reason') or ''} "
            + "; ".join(str(finding.get("text") or finding.get("id")) for finding in check.get("findings", ()))
            for check in self.report["checks"]
            if check["outcome"] != "passed"
        ]
        return f"exit {self.code}, {self.report['verdict']}, causes {self.causes}\n" + "\n".join(checks) + self.stderr


def mcdoctor(
    rig: Rig, *arguments: str, kubeconfig: Path | None = None, timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcdoctor", *arguments]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or rig.kubeconfig), "MCDOCTOR_HISTORY": "off"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment, stdin=subprocess.DEVNULL
    )


def diagnose(rig: Rig, *arguments: str, kubeconfig: Path | None = None) -> Run:
    words = arguments or ("frontend", "backend")
    result = mcdoctor(rig, "diagnose", *words, "--context", "cluster-a", "--yes", "-o", "json", kubeconfig=kubeconfig)
    assert "Traceback" not in result.stderr, result.stderr
    assert result.stdout, f"exit {result.returncode}: {result.stderr}"
    return Run(result.returncode, json.loads(result.stdout), result.stderr)
