"""API servers that fail under mcdoctor's hands: what was found is printed, what was not seen is told, exit codes hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcrig import faultproxy, manifests
from mcrig import rig as rigs
from mcrig.faultproxy import CutBody, Die, Drop, FaultProxy, Refuse, Rule, Slow
from mcrig.program import Run, diagnose, mcdoctor

pytestmark = [pytest.mark.rig, pytest.mark.timeout(200)]


@dataclasses.dataclass(frozen=True, slots=True)
class Behind:
    """Both clusters behind proxies; `config` reaches them."""

    rig: rigs.Rig
    a: FaultProxy
    b: FaultProxy
    config: Path

    def diagnose(self, *options: str) -> Run:
        return diagnose(self.rig, "frontend", "backend", *options, kubeconfig=self.config)


@pytest.fixture
def behind(clean_rig: rigs.Rig, tmp_path: Path) -> Iterator[Behind]:
    with FaultProxy(clean_rig.a) as a, FaultProxy(clean_rig.b) as b:
        config = faultproxy.kubeconfig(tmp_path / "kubeconfig", {"cluster-a": a, "cluster-b": b})
        yield Behind(clean_rig, a, b, config)


def test_throttling_is_waited_out(behind: Behind) -> None:
    for proxy in (behind.a, behind.b):
        proxy.rules.append(Rule(Refuse(429, retry_after=1), "GET .*/(pods|services)", times=2))
    run = behind.diagnose()
    assert (run.report["verdict"], run.code) == ("healthy", 0), run.told
    throttled = [seen for seen in behind.a.seen if seen.status == 429]
    again = [seen for seen in behind.a.seen if seen.path == throttled[0].path and seen.status != 429]
    assert len(throttled) == 2
    assert again and again[0].at - throttled[0].at >= 0.9, "Retry-After was not waited for"


def test_one_answer_that_is_cut_off_is_asked_again(behind: Behind) -> None:
    behind.a.rules.append(Rule(CutBody(150), "GET .*/pods", times=1))
    run = behind.diagnose()
    assert (run.report["verdict"], run.code) == ("healthy", 0), run.told


def test_answers_that_stay_cut_off_are_blindness(behind: Behind) -> None:
    behind.a.rules.append(Rule(CutBody(150), "GET .*/pods"))
    run = behind.diagnose()
    assert (run.report["verdict"], run.code) == ("inconclusive", 3), run.told
    assert "cut off" in run.limits
    assert "kubectl get pod" in run.limits


def test_a_kind_that_fails_with_500_is_told_and_the_rest_goes_on(behind: Behind) -> None:
    for proxy in (behind.a, behind.b):
        proxy.rules.append(Rule(Refuse(500), "GET .*/networkpolicies"))
    run = behind.diagnose()
    assert (run.report["verdict"], run.code) == ("healthy", 0), run.told
    assert "NetworkPolicy" in run.limits and "InternalError" in run.limits
    policy = next(check for check in run.report["checks"] if check["id"] == "netpol-allows-path")
    assert policy["outcome"] == "unknown"


@pytest.mark.parametrize("how", ["slow", "failing", "gone"])
def test_the_other_cluster_cannot_be_asked(behind: Behind, how: str) -> None:
    faults: dict[str, faultproxy.Fault] = {"slow": Slow(4), "failing": Refuse(500), "gone": Die()}
    behind.b.rules.append(Rule(faults[how]))
    run = behind.diagnose("--request-timeout", "2s")
    # The request from the source's pod works: that much is certain without the other cluster.
    assert (run.report["verdict"], run.code) == ("healthy", 0), run.told
    assert "cluster-b" in run.limits


def test_findings_stay_when_the_other_api_server_dies_half_way(behind: Behind) -> None:
    behind.rig.network.filter_prohibit(80)
    behind.b.rules.append(Rule(Die(), skip=8))
    run = behind.diagnose()
    assert (run.report["verdict"], run.code) == ("broken", 1), run.told
    assert run.causes[0] == "cloud-firewall-blocks-port", run.told
    assert "cluster-b" in run.limits


def test_what_the_dead_cluster_would_have_told_is_not_invented(behind: Behind) -> None:
    """The Service of B selects nothing; B's API is gone before that can be read: the cause must not be made up."""
    service = manifests.backend_service()
    service["spec"]["selector"] = {"app": "bakend"}  # type: ignore[index]
    behind.rig.b.apply(manifests.dump([service]))
    behind.b.rules.append(Rule(Die()))
    run = behind.diagnose()
    assert run.code == 1, run.told
    assert "cluster-b" in run.limits
    assert all(cause["certainty"] != "proved" for cause in run.report["causes"]), run.told


def test_a_token_that_expires_half_way(behind: Behind) -> None:
    behind.a.rules.append(Rule(Refuse(401), skip=6))
    result = mcdoctor(
        behind.rig, "diagnose", "frontend", "backend", "--context", "cluster-a", "--yes", kubeconfig=behind.config
    )
    assert result.returncode == 3, result.stderr
    assert "401" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_a_token_that_was_never_valid(behind: Behind) -> None:
    behind.a.rules.append(Rule(Refuse(401)))
    result = mcdoctor(
        behind.rig, "diagnose", "frontend", "backend", "--context", "cluster-a", "--yes", kubeconfig=behind.config
    )
    assert result.returncode == 3
    assert "does not accept the credentials" in result.stderr


def test_the_source_api_dies_while_the_prober_works(behind: Behind) -> None:
    behind.a.rules.append(Rule(Die(), "ephemeralcontainers", skip=1))
    run = behind.diagnose()
    assert run.code in {0, 3}, run.told
    assert run.report["verdict"] in {"healthy", "inconclusive"}, run.told


ATTACH = "GET .*/attach"


def test_an_attach_that_drops_is_taken_over_and_the_answer_is_the_same(behind: Behind) -> None:
    behind.rig.network.filter_prohibit(80)
    behind.a.rules.append(Rule(Drop(2.0), ATTACH, times=1))
    run = behind.diagnose()
    assert (run.report["verdict"], run.code) == ("broken", 1), run.told
    assert run.causes[0] == "cloud-firewall-blocks-port", run.told
    assert run.stderr.count("another one takes its place") == 1, run.stderr
    assert run.stderr.count("has ended") == 2, run.stderr
    assert len([seen for seen in behind.a.seen if "/attach" in seen.path]) == 2
    assert "connection to the container was lost" not in run.limits


def test_a_healthy_pair_stays_healthy_when_the_attach_drops_once(behind: Behind) -> None:
    behind.a.rules.append(Rule(Drop(2.0), ATTACH, times=1))
    run = behind.diagnose()
    assert (run.report["verdict"], run.code) == ("healthy", 0), run.told
    assert run.stderr.count("has ended") == 1 + run.stderr.count("another one takes its place"), run.stderr


def test_an_attach_that_drops_again_and_again_keeps_what_was_found(behind: Behind) -> None:
    behind.rig.network.filter_drop(80)
    behind.a.rules.append(Rule(Drop(2.0), ATTACH))
    run = behind.diagnose()
    assert run.code in {1, 3} and run.report["verdict"] in {"broken", "inconclusive"}, run.told
    assert {fact["kind"] for fact in run.report["facts"]} >= {"resolv_conf", "dns_answer"}, run.told
    assert "lost a second time" in run.limits, run.limits
    assert run.stderr.count("has ended") == 2, run.stderr
