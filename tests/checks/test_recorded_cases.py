"""Recorded cases of tests/cases, replayed in this process: the right cause on rank 1, nothing on healthy ones.

`tests/accuracy.py` counts over all of them; here stand those that the rooms joint, gateway and netpol must hold.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mcdoctor.cli.app import app

CASES = Path(__file__).parents[1] / "cases"
HELD = (
    "gw-grant-absent", "gw-namespace-not-selected", "gw-hostname-outside-listener", "gw-section-name-unknown",
    "gw-no-external-address", "gw-lb-targets-unhealthy", "mirror-probe-port-closed", "mirror-label-differs",
    "mcs-slices-without-label", "mcs-type-conflict", "mesh-cluster-ids-equal", "sub-no-gateway-node",
    "l3-global-address-not-given", "l3-announced-range-wrong", "netpol-ipblock-source-translated",
    "netpol-without-hbone", "netpol-and-where-or-was-meant",
    "netpol-over-dns-pods", "netpol-node-cache-not-allowed", "fqdn-policy-address-evicted", "netpol-first-seconds",
    "netpol-one-replica-stuck", "mesh-global-on-one-side", "gw-grpc-route-refused", "ok-second-route-unattached",
    "ok-clusterset-import", "ok-external-name-tls", "ok-default-deny-with-allow", "ok-union-of-policies",
)  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_case(name: str) -> None:
    expected = yaml.safe_load((CASES / name / "expect.yaml").read_text("utf-8"))
    ran = CliRunner().invoke(app, ["replay", str(CASES / name), "-o", "json"])
    report = json.loads(ran.stdout)
    assert report["verdict"] == expected["verdict"]
    assert [c["id"] for c in report["causes"]][:1] == expected["causes"][:1]
