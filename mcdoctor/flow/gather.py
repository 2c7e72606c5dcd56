"""Reads what the path needs, and nothing else: the pair's namespaces, the named extras, the cluster-wide few.

The cost follows the pair: pods and Services of other namespaces are never listed. What was read comes back as facts,
refusals included, so that `resolve` and the judges work the same live and from a recording.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mcdoctor.flow import kinds
from mcdoctor.flow.request import FlowRequest
from mcdoctor.flow.resolve import FlowError
from mcdoctor.models.facts import Absent, Blind, Fact, KubeObject, Listed
from mcdoctor.models.flow import Target
from mcdoctor.ports import ClusterReader

_THREADS = 8
_DNS = "kube-dns"
_SYSTEM = "kube-system"
_SELECTS = "namespaceSelector"
_POLICIES = frozenset(r.kind for r in kinds.READINGS if "NetworkPolicy" in r.kind)

Job = Callable[[], Sequence[Fact]]


class Unreachable(FlowError):
    """The source's cluster answered nothing; the message is the reason."""


@dataclass(slots=True)
class _Reading:
    """The facts of one gathering, and the clusters that do not answer."""

    facts: list[Fact] = field(default_factory=list)
    dead: dict[str, Blind] = field(default_factory=dict)

    def run(self, jobs: Sequence[tuple[ClusterReader, Job]]) -> list[Fact]:
        """Runs jobs side by side; a cluster found dead is not asked again."""
        wanted = [(r, j) for r, j in jobs if r.cluster not in self.dead]
        found: list[Fact] = []
        if not wanted:
            return found
        with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="read") as pool:
            for facts in pool.map(lambda pair: pair[1](), wanted):
                found.extend(facts)
        self.facts.extend(found)
        return found


def gather(readers: Mapping[str, ClusterReader], request: FlowRequest) -> tuple[Fact, ...]:
    """Everything that the resolution and the judges may want, from the clusters that `readers` can read."""
    here = readers[request.source_cluster]
    there = readers.get(request.destination_cluster or request.source_cluster, here)
    reading = _Reading()
    _knock(reading, list({id(r): r for r in (here, there)}.values()))
    if (silent := reading.dead.get(here.cluster)) is not None:
        raise Unreachable(f"cluster {here.cluster}: {silent.reason}")
    source = _find(reading, here, request.source, request.namespace, (*kinds.WORKLOADS, kinds.SERVICE))
    source_namespaces = tuple(dict.fromkeys(o.namespace or "default" for o in source))
    namespaces = _destination_namespaces(reading, request, here, there, source_namespaces)
    pair: list[tuple[ClusterReader, str]] = [(here, n) for n in (*source_namespaces, *namespaces)]
    pair += [(there, n) for n in namespaces] + [(there, n) for n in source_namespaces if there is not here]
    pair = list(dict.fromkeys(pair))
    jobs: list[tuple[ClusterReader, Job]] = []
    for reader, namespace in pair:
        jobs.extend((reader, _list(reader, k, namespace)) for k in _CORE)
        jobs.append((reader, _get(reader, kinds.NAMESPACE, None, namespace)))
        jobs.extend((reader, _list(reader, r.kind, namespace)) for r in kinds.READINGS if r.scope == "pair")
    for reader in dict.fromkeys((here, there)):
        for wanted in kinds.READINGS:
            if wanted.scope == "cluster":
                jobs.append((reader, _list(reader, wanted.kind, None)))
            elif wanted.scope == "named" and wanted.name:
                place, _, name = wanted.name.rpartition("/")
                jobs.append((reader, _get(reader, wanted.kind, place or None, name)))
        jobs.append((reader, _get(reader, kinds.NAMESPACE, None, _SYSTEM)))
        jobs.append((reader, _list(reader, kinds.SLICE, _SYSTEM, f"kubernetes.io/service-name={_DNS}")))
        jobs.append((reader, _list(reader, kinds.POD, _SYSTEM, f"k8s-app={_DNS}")))
    reading.run(jobs)
    reading.run([job for reader in dict.fromkeys((here, there)) for job in _asked_for(reading, reader, pair)])
    # Selectors over namespaces are judged by the labels of all of them; read only where a policy has one.
    reading.run(
        [(r, _list(r, kinds.NAMESPACE, None)) for r in dict.fromkeys((here, there)) if _by_namespace(reading, r)]
    )
    return tuple(_distinct(f for f in reading.facts if not _refused_for_nothing(f, reading.facts)))


_OPTIONAL = {f"{r.kind} {r.name}": r.group for r in kinds.READINGS if r.scope == "named" and r.optional}
_QUIET = frozenset(f"{r.kind} {r.name}" for r in kinds.READINGS if r.quiet)
_ROOT = re.compile(r"""^rootNamespace:\s*["']?([a-z0-9-]+)""", re.MULTILINE)


def _asked_for(
    reading: _Reading, reader: ClusterReader, pair: Sequence[tuple[ClusterReader, str]]
) -> Iterable[tuple[ClusterReader, Job]]:
    """What is read because of what the pair's namespaces hold: the scopes `root`, `account` and `hosts`."""
    mine = [f for f in reading.facts if isinstance(f, KubeObject) and f.cluster == reader.cluster]
    homes = {namespace for owner, namespace in pair if owner is reader}
    pods = [o for o in mine if o.kind == kinds.POD and o.namespace in homes]
    enrolled = {
        o.name for o in mine if o.kind == kinds.NAMESPACE and o.labels.get("istio.io/dataplane-mode") == "ambient"
    }
    if any(_in_istio(pod) or pod.namespace in enrolled for pod in pods):
        root = _istio_root(mine)
        if root not in homes:
            yield from ((reader, _list(reader, r.kind, root)) for r in kinds.READINGS if r.scope == "root")
    policies = [o for o in mine if "NetworkPolicy" in o.kind and o.kind.endswith("projectcalico.org")]
    if any("serviceAccount" in str(policy.spec) for policy in policies):
        accounts = {(p.namespace, str(p.spec.get("serviceAccountName") or "default")) for p in pods}
        for place, name in sorted((place or "default", name) for place, name in accounts):
            yield from ((reader, _get(reader, r.kind, place, name)) for r in kinds.READINGS if r.scope == "account")
    forwarded = any(policy.spec.get("applyOnForward") is True for policy in policies)
    if forwarded or (policies and any(pod.spec.get("hostNetwork") is True for pod in pods)):
        yield from ((reader, _list(reader, r.kind, None)) for r in kinds.READINGS if r.scope == "hosts")


def _in_istio(pod: KubeObject) -> bool:
    if pod.labels.get("istio.io/dataplane-mode") == "ambient":
        return True
    sections = [pod.spec.get(name) for name in ("containers", "initContainers")]
    containers = [c for section in sections if isinstance(section, list) for c in section if isinstance(c, Mapping)]
    return any(container.get("name") == "istio-proxy" for container in containers)


def _istio_root(objects: Sequence[KubeObject]) -> str:
    """The namespace whose policies hold for the whole mesh."""
    for found in objects:
        if (found.kind, found.namespace, found.name) == (kinds.CONFIG_MAP, kinds.ISTIO_ROOT, "istio"):
            data = found.body.get("data")
            told = _ROOT.search(str(data.get("mesh"))) if isinstance(data, Mapping) else None
            return told[1] if told else kinds.ISTIO_ROOT
    return kinds.ISTIO_ROOT


def _refused_for_nothing(fact: Fact, facts: Sequence[Fact]) -> bool:
    """A 403 about an object of an extension that the cluster does not seem to have: no limit of the diagnosis."""
    if not isinstance(fact, Blind) or fact.status != 403 or fact.about not in _OPTIONAL:
        return False
    if fact.about in _QUIET:
        return True
    group = _OPTIONAL[fact.about]
    return not group or not any(
        (f.kind if isinstance(f, KubeObject) else f.wanted).endswith(f".{group}")
        for f in facts
        if isinstance(f, (KubeObject, Listed, Blind))
        and f.cluster == fact.cluster
        and not (isinstance(f, Blind) and f.about in _QUIET)
    )


def _by_namespace(reading: _Reading, reader: ClusterReader) -> bool:
    return any(
        isinstance(f, KubeObject) and f.cluster == reader.cluster and f.kind in _POLICIES and _SELECTS in str(f.spec)
        for f in reading.facts
    )


_CORE = (*kinds.WORKLOADS, kinds.SERVICE, kinds.SLICE)


def _knock(reading: _Reading, readers: Sequence[ClusterReader]) -> None:
    """One small request a cluster: one that gives no answer at all is not asked forty more."""
    for reader in readers:
        fact = reader.get(kinds.NAMESPACE, None, _SYSTEM)
        if isinstance(fact, Blind) and fact.status is None and fact.permission is None:
            reading.dead[reader.cluster] = fact
            reading.facts.append(fact)


def _get(reader: ClusterReader, kind: str, namespace: str | None, name: str) -> Job:
    return lambda: (reader.get(kind, namespace, name),)


def _list(reader: ClusterReader, kind: str, namespace: str | None, labels: str | None = None) -> Job:
    return lambda: reader.list(kind, namespace, labels=labels)


def _find(
    reading: _Reading, reader: ClusterReader, target: Target, namespace: str | None, allowed: Sequence[str]
) -> list[KubeObject]:
    """Objects of the target's name: by name in a namespace, else in all namespaces by a field selector."""
    wanted = (target.kind,) if target.kind else tuple(allowed)
    place = target.namespace or namespace
    jobs: list[tuple[ClusterReader, Job]] = []
    for kind in wanted:
        if place:
            jobs.append((reader, _get(reader, kind, place, target.name)))
        else:
            jobs.append((reader, _by_name(reader, kind, target.name)))
    found = [f for f in reading.run(jobs) if isinstance(f, KubeObject)]
    if not found and place:
        near = reading.run([(reader, _list(reader, k, place)) for k in _CORE])
        return [f for f in near if isinstance(f, KubeObject) and f.name == target.name and f.kind in wanted]
    return found


def _by_name(reader: ClusterReader, kind: str, name: str) -> Job:
    return lambda: reader.list(kind, None, fields=f"metadata.name={name}")


def _destination_namespaces(
    reading: _Reading,
    request: FlowRequest,
    here: ClusterReader,
    there: ClusterReader,
    source_namespaces: tuple[str, ...],
) -> tuple[str, ...]:
    """The namespaces in which the destination may be: said, or found by its name, else the source's."""
    target = request.destination
    if target.form == "address":
        return source_namespaces
    if target.form == "host":
        labels = target.name.split(".")
        return (labels[1],) if len(labels) >= 3 and labels[2] == "svc" else source_namespaces
    if target.namespace or request.to_namespace:
        return tuple(n for n in (target.namespace or request.to_namespace,) if n)
    if request.namespace:
        return (request.namespace,)
    found: list[KubeObject] = []
    for reader in dict.fromkeys((here, there)):
        found += _find(reading, reader, target, None, (kinds.SERVICE, kinds.SERVICE_IMPORT, *kinds.WORKLOADS))
    return tuple(dict.fromkeys(o.namespace or "default" for o in found)) or source_namespaces


def _distinct(facts: Iterable[Fact]) -> list[Fact]:
    """Each object, absence and refusal once."""
    seen: dict[object, Fact] = {}
    for fact in facts:
        if isinstance(fact, KubeObject):
            seen[("object", fact.cluster, fact.kind, fact.namespace, fact.name)] = fact
        elif isinstance(fact, Absent):
            seen[("absent", fact.cluster, fact.wanted, fact.namespace, fact.name)] = fact
        elif isinstance(fact, Blind):
            seen[("blind", fact.cluster, fact.wanted, fact.about, fact.reason)] = fact
        else:
            seen[fact] = fact
    return list(seen.values())
