"""Two small simulated clusters on this machine: real packets, real DNS, real TLS, real HTTP.

Each pod, name server and gateway of a scenario's `lab.yaml` is a network namespace of its own; all packets between them
go through one process that routes, translates Service addresses, and drops, delays or refuses as the file says.
Nothing outside those namespaces is touched, and nothing needs root. Imports of this module are light.
"""

from __future__ import annotations

from mcdoctor.lab.running import Lab, LabFailed, RunningLab
from mcdoctor.lab.scenarios import Scenario, folder, names, scenario, scenarios
from mcdoctor.lab.schema import BadLab

__all__ = [
    "BadLab", "Lab", "LabFailed", "RunningLab", "Scenario", "available", "folder", "names", "scenario", "scenarios",
]  # fmt: skip


def available() -> str | None:
    """None where a lab can run here, else why not, in a few words."""
    from mcdoctor.lab.namespaces import why_not

    return why_not()
