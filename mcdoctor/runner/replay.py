"""A bundle in, a report out: the same judges and diagnosis as live, without a packet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mcdoctor.check import Check
from mcdoctor.flow import FlowRequest, parse_target, resolve
from mcdoctor.models.collection import Facts
from mcdoctor.models.ids import Symptom
from mcdoctor.models.playbook import Library
from mcdoctor.models.report import Report
from mcdoctor.runner.bundle import Bundle
from mcdoctor.runner.run import arrange, conclude


class NoFlow(ValueError):
    """The bundle does not say which pair it is about, and no pair was given."""


def request_of(
    bundle: Bundle,
    source: str | None = None,
    destination: str | None = None,
    *,
    namespace: str | None = None,
    to_namespace: str | None = None,
    port: str | None = None,
) -> FlowRequest:
    """The question put to a bundle: the pair given, else the recorded one; raises NoFlow."""
    recorded = bundle.request
    if source is None and destination is None:
        source, destination = recorded.get("source"), recorded.get("destination")
        namespace = namespace or recorded.get("namespace")
        to_namespace = to_namespace or recorded.get("toNamespace")
        port = port or recorded.get("port")
    if not source or not destination:
        raise NoFlow(f"{bundle.path} does not say which pair it is about: give SRC and DST")
    first, second = parse_target(source), parse_target(destination)
    here = bundle.cluster_named(first.context) or bundle.source
    there = bundle.cluster_named(second.context) or bundle.destination
    return FlowRequest(
        source=first,
        destination=second,
        source_cluster=here,
        destination_cluster=there,
        namespace=namespace,
        to_namespace=to_namespace,
        port=port,
    )


def replay(
    bundle: Bundle,
    checks: Sequence[Check],
    library: Library,
    request: FlowRequest,
    *,
    complete: Iterable[str] = (),
    symptom: Symptom | None = None,
    means: str = "",
) -> Report:
    """The report of a bundle; raises FlowError when the pair cannot be resolved."""
    whole = (*bundle.complete, *complete)
    facts = arrange(bundle.facts)
    flow = resolve(request, Facts(facts, None, whole))
    return conclude(
        checks,
        facts,
        flow,
        library,
        complete=whole,
        means=means or f"recording {bundle.path}",
        started=bundle.collected_at,
        symptom=symptom,
    )
