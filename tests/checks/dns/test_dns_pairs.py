"""Look-alikes: two cases that differ in one thing, and end in different causes or certainties."""

from __future__ import annotations

import difflib

import pytest
from worlds import cases

PAIRS = [
    ("dns", "import-missing", "stub-zone-missing", 6),
    ("dns", "headless-not-exported", "only-in-other-cluster", 1),
    ("dns", "upstreams-disagree", "upstreams-disagree-one-listed", 2),
    ("dns", "nameservers-disagree", "negative-cache-nameservers", 2),
    ("dns", "search-wildcard", "search-no-wildcard", 2),
    ("dns", "search-nodata-musl", "search-nodata-glibc", 4),
    ("dns", "conntrack-race", "conntrack-race-unsure", 1),
    ("dns", "negative-cache-young", "denied-for-no-known-reason", 1),
    ("dns", "watch-stale", "watch-stale-unsure", 1),
    ("dns", "forward-loop", "dns-pods-down", 1),
    ("dns", "capture-no-address", "capture-with-allocation", 2),
    ("dns", "stub-zone-missing", "stub-zone-missing-proved", 2),
    ("dns", "upstream-fails", "upstream-answers-node", 1),
    ("dns", "host-network-resolver", "host-network-with-policy", 8),
    ("endpoints", "target-port-no-listener", "target-port-on-loopback", 2),
    ("endpoints", "target-port-name-unknown", "target-port-name-known", 4),
    ("endpoints", "slice-absent", "slice-absent-new-service", 1),
    ("endpoints", "local-policy-no-endpoint", "local-policy-with-endpoint", 5),
]


@pytest.mark.parametrize(("room", "one", "other", "most"), PAIRS, ids=str)
def test_look_alikes_are_told_apart(room: str, one: str, other: str, most: int) -> None:
    by_name = {c.name: c for c in cases(room)}
    first, second = by_name[one], by_name[other]
    changed = [x for x in difflib.ndiff(first.lines, second.lines) if x[:1] in "+-"]
    assert 0 < len(changed) <= most, changed
    answers = [
        [(d.cause.id, d.certainty) for d in c.report().diagnoses][:1]
        + sorted({f.id for x in c.judged()[1].values() for f in x})
        for c in (first, second)
    ]
    assert answers[0] != answers[1]
    assert answers[0][:1] != answers[1][:1] or not answers[0][:1], answers
