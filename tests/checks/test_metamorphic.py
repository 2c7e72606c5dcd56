"""Recorded cases, changed in ways whose effect is known: a part of `python tests/metamorphic.py`, the same each time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from zlib import crc32

import pytest

_SCRIPT = Path(__file__).parents[1] / "metamorphic.py"
_SPEC = importlib.util.spec_from_file_location("metamorphic", _SCRIPT)
assert _SPEC is not None and _SPEC.loader is not None
metamorphic = importlib.util.module_from_spec(_SPEC)
sys.modules["metamorphic"] = metamorphic
_SPEC.loader.exec_module(metamorphic)

SHARES = {"without_a_kind": 4, "without_an_object_kind": 4, "without_a_cluster": 3}
"""One in how many cases; one in two where nothing is said: what a minute allows."""

KNOWN = {
    # What tells the rival is one kind of fact, and without it the evidence is that of the cause named.
    ("l4-server-closes-idle-first", "supported: idle-timeout-rst"): "only the proxy's log tells who closed first",
    ("l4-ipvs-weight-zero", "supported: stale-endpoint-during-rollout"): "only the node tells that a rule stayed",
    ("dns-zone-sent-to-public", "supported: alias-target-missing"): "only the Corefile tells who was asked",
    ("held-consul-stale-denial", "supported: alias-target-missing"): "only the Corefile tells who was asked",
    ("dns-five-second-steps", "supported: snat-insert-race"): "failed inserts of lookups look like those of connects",
    ("held-half-the-lookups-take-five-seconds", "supported: snat-insert-race"): "the same",
    ("dns-aaaa-no-route", "supported: peering-route-missing"): "only the answers tell that IPv4 was offered too",
    ("l3-families-differ", "supported: peering-route-missing"): "the same",
    ("pods-cannot-pull", "supported: endpoints-not-updated"): "only the pods tell why nothing is listed",
    ("target-port-name-absent", "supported: endpoints-not-updated"): "the same",
    ("mirror-probe-port-closed", "supported: manual-endpoints-wrong"): "only the Link tells who keeps the endpoints",
    (
        "dns-clusterset-not-imported",
        "supported: service-missing-in-source-cluster",
    ): "only the export tells it is meant",
    ("held-server-keepalive-below-balancers", "verdict: healthy"): "new connections to the name are all answered",
    # Open: the judge should ask for more before it is sure.
    ("four-external-name-named-like-its-namespace", "verdict: healthy"): "the resolver's servers are not known",
    ("four-server-on-ipv4-wildcard-only", "verdict: healthy"): "a request over one family does not tell of the other",
    ("four-server-on-ipv4-wildcard-only", "supported: aaaa-without-ipv6-route"): "the listener's pod is not read",
    ("four-alias-into-unforwarded-zone", "supported: inconsistent-upstream-resolvers"): "half of the lookups are gone",
    ("four-ok-deny-all-comes-last", "supported: netpol-egress-dns-blocked"): "half of the lookups are gone",
    ("four-ok-deny-all-comes-last", "alarm: netpol-denies-dns"): "the same",
    ("four-ok-deny-all-comes-last", "verdict: broken"): "the same",
}
"""(case, what is wrong) that stands, and why."""


def _names(how: str) -> list[str]:
    share = SHARES.get(how, 2)
    return [n for n in metamorphic.known() if not crc32(f"{how} {n}".encode()) % share]


@pytest.mark.parametrize(
    "how", [*metamorphic.FEWER, *metamorphic.NOISE, *metamorphic.RENAMED], ids=lambda h: h.__name__
)
def test_diagnosis_stands(how: object) -> None:
    name = how.__name__  # type: ignore[attr-defined]
    found = [v for v in metamorphic.sweep(_names(name), [how], [0]) if (v.case, v.wrong) not in KNOWN]
    assert not found, "\n".join(f"{v.case}, {v.change}: {v.wrong}" for v in found)


def test_exceptions_are_cases() -> None:
    assert {case for case, _ in KNOWN} <= set(metamorphic.known())
