"""The experiment that settles a black hole: the request that hung, again, with small segments."""

from __future__ import annotations

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import HttpRequest
from mcdoctor.models.outcome import Outcome, Passed, Skipped, settle
from mcdoctor_checks.mtu.judge import Args, note, surroundings, verdicts
from mcdoctor_checks.sight import place

PROOF_FINDINGS = (
    "mtu-small-segments-pass",
    "mtu-small-segments-fail",
    "mtu-overhead-proved",
    "mtu-icmp-block-proved",
    "mtu-unequal-nodes-proved",
    "mtu-clamp-proved",
)
_PROVES = {
    "mtu-tunnel-overhead-explains": "mtu-overhead-proved",
    "mtu-frag-needed-seen": "mtu-icmp-block-proved",
    "mtu-differs-between-nodes": "mtu-unequal-nodes-proved",
    "mtu-clamp-missing": "mtu-clamp-proved",
}


def judge_small_segments(facts: Facts) -> Outcome:
    """The request that hangs with segments of the usual size is answered with small ones."""
    requests = [r for r in facts.all(HttpRequest) if place(facts.flow, r.vantage) in ("source", "near")]
    small = [r for r in requests if r.max_segment]
    if not small:
        return Skipped("the request was not repeated with small segments")
    for trial in small:
        same = [r for r in requests if not r.max_segment and r.url == trial.url and _alike(r, trial)]
        hung = [r for r in same if r.result in ("timeout", "closed", "reset")]
        if not hung or any(r.result == "response" for r in same):
            continue
        if trial.result != "response":
            return settle(
                [note("mtu-small-segments-fail", trial.url, [trial, hung[0]], size=trial.max_segment or 0)], (trial,)
            )
        args: Args = {"size": trial.max_segment or 0, "ms": round(trial.ms), "waited": round(hung[0].ms)}
        found = [note("mtu-small-segments-pass", trial.url, [trial, hung[0]], args=args)]
        seen = verdicts(facts)
        for hole in seen.holes[:1]:
            names = {f.id for f in surroundings(facts, hole, seen)}
            found += [
                note(proof, trial.url, [trial, hung[0], hole.fact], args=args)
                for sign, proof in _PROVES.items()
                if sign in names
            ]
        return settle(found, (trial, hung[0]))
    return Passed(tuple(small))


def _alike(one: HttpRequest, other: HttpRequest) -> bool:
    """Requests of about one size: the experiment changes the segments only."""
    if one.request_bytes is None or other.request_bytes is None:
        return True
    return abs(one.request_bytes - other.request_bytes) <= 200
