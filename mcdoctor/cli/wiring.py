"""The one place that knows adapters and ports at once: opens clusters, the lab and probers for a command."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mcdoctor.cli.errors import NOT_SETTLED, USAGE, fail, say
from mcdoctor.flow import FlowRequest, parse_target
from mcdoctor.models.facts import EndpointAnswer, Fact, KubeObject
from mcdoctor.models.flow import Flow
from mcdoctor.models.playbook import Library
from mcdoctor.ports import ClusterReader, Prober

if TYPE_CHECKING:
    from mcdoctor.cli.diagnose import Asked
    from mcdoctor.kube.agent import Agent
    from mcdoctor.kube.config import Contexts
    from mcdoctor.kube.reader import ApiReader
    from mcdoctor.kube.vantage import Plan
    from mcdoctor.lab import RunningLab


@cache
def library() -> Library:
    """The playbooks."""
    from mcdoctor_playbooks import load

    return load()


Opener = Callable[["Session", Flow], Prober | None]


@dataclass(slots=True, kw_only=True)
class Session:
    """Clusters opened for one command. `open_prober` fills `prober`, or `why_no_prober`, once the flow is known."""

    request: FlowRequest
    facts: tuple[Fact, ...]
    opener: Opener
    means: str
    complete: tuple[str, ...] = ()
    contexts: Mapping[str, str] = field(default_factory=dict)
    readers: tuple[ClusterReader, ...] = ()
    prober: Prober | None = None
    bypass: Prober | None = None
    far: Prober | None = None
    why_no_prober: str = ""
    deadline: float = float("inf")
    extra: list[Fact] = field(default_factory=list)
    closers: list[Callable[[], None]] = field(default_factory=list)

    def open_prober(self, flow: Flow) -> Prober | None:
        """The prober at the source, or None with `why_no_prober` set."""
        self.prober = self.opener(self, flow)
        return self.prober

    def all_facts(self) -> Iterable[Fact]:
        """What was read, and what opening the prober showed."""
        return (*self.facts, *self.extra)

    def close(self) -> None:
        """Ends everything that was opened, last first; safe to call twice. Ctrl-C cuts one wait short, not the rest."""
        interrupted = False
        while self.closers:
            try:
                with contextlib.suppress(Exception):
                    self.closers.pop()()
            except KeyboardInterrupt:
                interrupted = True
        if interrupted:
            raise KeyboardInterrupt

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- the lab --------------------------------------------------------------------------------------------------------


def lab_session(asked: Asked) -> Session:
    """The scenario running in namespaces; where they are forbidden, its shipped recording and a line that says so."""
    from mcdoctor.lab import available, folder
    from mcdoctor.runner.bundle import read_bundle
    from mcdoctor.runner.replay import request_of

    name = asked.lab or "default"
    try:
        place = folder(name)
    except LookupError as error:
        fail(str(error.args[0]), USAGE, "See them all: mcdoctor lab list")
    reason = "--probe none" if asked.probe == "none" else available()
    starting = None if reason is not None else _Starting(place)
    try:
        bundle = read_bundle(place)
        request = request_of(
            bundle,
            asked.source,
            asked.destination,
            namespace=asked.namespace,
            to_namespace=asked.to_namespace,
            port=asked.port,
        )
    except BaseException:
        if starting is not None:
            starting.stop()
        raise
    deadline = time.monotonic() + asked.deadline
    if reason is not None and asked.probe != "none":
        say(f"Network namespaces cannot be used here ({reason}): this is the recording of the scenario {name}.")
        return Session(
            request=request,
            facts=bundle.facts,
            opener=lambda _session, _flow: None,
            means=f"recording of lab {name}",
            complete=("*",),
            deadline=deadline,
            why_no_prober="this is a recording",
        )
    session = Session(
        request=request,
        facts=tuple(f for f in bundle.facts if isinstance(f, (KubeObject, EndpointAnswer))),
        opener=_open_lab(starting),
        means=f"lab {name}",
        complete=("*",),
        deadline=deadline,
    )
    if starting is not None:
        session.closers.append(starting.stop)
    return session


class _Starting:
    """A lab that comes up while bundle, checks and playbooks are read."""

    def __init__(self, folder: Path) -> None:
        from mcdoctor.lab import Lab

        pool = ThreadPoolExecutor(1, thread_name_prefix="lab")
        self._lab: Future[RunningLab] = pool.submit(Lab(folder).start)
        pool.shutdown(wait=False)

    def running(self) -> RunningLab:
        """The lab, once it is up; raises what its start raised."""
        return self._lab.result()

    def stop(self) -> None:
        """Ends the lab, also one that is still coming up; safe to call twice."""
        with contextlib.suppress(Exception):
            self._lab.result().stop()


def _open_lab(starting: _Starting | None) -> Opener:
    def open_prober(session: Session, flow: Flow) -> Prober | None:
        if starting is None:
            session.why_no_prober = "nothing was sent: --probe none"
            return None
        from mcdoctor.models.vantage import Vantage
        from mcdoctor.prober.local import spawn

        pod = flow.source_pod
        if pod is None:
            session.why_no_prober = "the source has no pod to send from"
            return None
        running = starting.running()
        vantage = Vantage(cluster=pod.cluster, namespace=pod.namespace, pod=pod.name)
        prober = spawn(running.argv(pod.cluster, f"{pod.namespace}/{pod.name}"), vantage)
        session.closers.append(prober.close)
        return prober

    return open_prober


# --- live clusters --------------------------------------------------------------------------------------------------


def live_session(asked: Asked) -> Session:
    """Reads the pair from one or two contexts; the prober is opened later, when the flow is known."""
    from mcdoctor.flow.gather import gather
    from mcdoctor.kube.config import contexts
    from mcdoctor.kube.errors import KubeConfigError

    source, destination = parse_target(asked.source), parse_target(asked.destination)
    deadline = time.monotonic() + asked.deadline
    try:
        known = contexts(asked.kubeconfig)
        here = _reader(asked, known, source.context or asked.context, deadline)
        other = destination.context or asked.to_context
        there = _reader(asked, known, other, deadline) if other else None
    except KubeConfigError as error:
        fail(str(error), USAGE)
    try:
        here.check()
    except KubeConfigError as error:
        fail(str(error), NOT_SETTLED)
    namespace = asked.namespace or (here.api.namespace if _says_namespace(known, here.cluster) else None)
    request = FlowRequest(
        source=source,
        destination=destination,
        source_cluster=here.cluster,
        destination_cluster=there.cluster if there else None,
        namespace=namespace,
        to_namespace=asked.to_namespace,
        port=asked.port,
    )
    readers: dict[str, ClusterReader] = {here.cluster: here}
    if there is not None:
        readers[there.cluster] = there
    if not asked.quiet:
        say("Reading " + " and ".join(readers) + " …")
    facts = gather(readers, request)
    if asked.to_bundle is not None:
        request, facts = _beside_recording(asked, request, facts)
    elif there is None:
        request, facts, readers = _conclude_destination(asked, known, request, facts, readers, deadline)
    return Session(
        request=request,
        facts=facts,
        opener=_open_live(asked, here),
        means="live",
        deadline=deadline,
        contexts={name: name for name in readers},
        readers=tuple(readers.values()),
    )


def _beside_recording(
    asked: Asked, request: FlowRequest, facts: tuple[Fact, ...]
) -> tuple[FlowRequest, tuple[Fact, ...]]:
    """The recorded cluster as the destination's: its objects and facts beside the live ones."""
    import dataclasses

    from mcdoctor.cli.diagnose import tell_problems
    from mcdoctor.runner.bundle import read_bundle

    bundle = read_bundle(asked.to_bundle or "")
    tell_problems(bundle)
    others = [c for c in bundle.clusters if c.name != request.source_cluster]
    if not others:
        fail(f"{asked.to_bundle} records only {request.source_cluster}, the source's cluster; record the destination's")
    name = next((c.name for c in others if c.role == "destination"), others[0].name)
    recorded = tuple(f for f in bundle.facts if (getattr(f, "cluster", None) or f.vantage.cluster) == name)
    return dataclasses.replace(request, destination_cluster=name), (*facts, *recorded)


def _reader(asked: Asked, known: Contexts, name: str | None, deadline: float) -> ApiReader:
    from mcdoctor.kube.config import connect
    from mcdoctor.kube.reader import ApiReader

    context = known.named(name)
    api = connect(
        context.name,
        kubeconfig=asked.kubeconfig,
        as_user=asked.as_user,
        as_groups=asked.as_groups,
        request_timeout=_seconds(asked.request_timeout),
        deadline=deadline,
        known=known,
    )
    return ApiReader(api, context.name)


def _seconds(text: str) -> float | None:
    """kubectl's durations: 5, 5s, 2m, 1h, 500ms; 0 means no limit of its own."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = text.strip(), "s"
    for suffix in ("ms", "s", "m", "h"):
        if number.endswith(suffix):
            number, unit = number[: -len(suffix)], suffix
            break
    try:
        value = float(number) * units[unit]
    except ValueError:
        fail(f"--request-timeout {text!r}: expected a duration such as 5s or 1m")
    if value < 0:
        fail(f"--request-timeout {text!r} is negative")
    return value or None


def _says_namespace(known: Contexts, name: str) -> bool:
    """Whether the context itself names a namespace other than default; else names are looked for everywhere."""
    return known.named(name).namespace not in ("", "default")


def _conclude_destination(
    asked: Asked,
    known: Contexts,
    request: FlowRequest,
    facts: tuple[Fact, ...],
    readers: dict[str, ClusterReader],
    deadline: float,
) -> tuple[FlowRequest, tuple[Fact, ...], dict[str, ClusterReader]]:
    """The other cluster where two facts agree on it: it is spoken of in A, and it has the Service, or its addresses."""
    import dataclasses

    from mcdoctor.flow import kinds, peers
    from mcdoctor.flow.gather import gather
    from mcdoctor.kube.errors import KubeConfigError
    from mcdoctor.models.collection import Facts
    from mcdoctor.models.facts import Blind, KubeObject

    here = known.named(request.source_cluster)
    seen = Facts(facts)
    words = peers.names_in_source(seen, request.source_cluster, request.destination)
    namespaces = tuple(
        dict.fromkeys(o.namespace for o in seen.objects(kinds.SERVICE) if o.name == request.destination.name)
    )
    candidates: list[tuple[str, list[str]]] = []
    unseen: list[Blind] = []
    for context in known.all:
        if context.name == here.name or (context.server and context.server == here.server):
            continue
        reasons = []
        if where := peers.mentions(words, (context.name, context.cluster)):
            reasons.append(where)
        if not reasons and len(known.all) > _MOST_CONTEXTS:
            continue
        try:
            reader = _reader(asked, known, context.name, deadline)
        except KubeConfigError:
            continue
        for namespace in namespaces or ((request.to_namespace or request.namespace),):
            if namespace is None:
                continue
            found = reader.get(kinds.SERVICE, namespace, request.destination.name)
            if isinstance(found, KubeObject):
                reasons.append(f"it has {found.subject}")
                break
            if isinstance(found, Blind) and reasons:
                unseen.append(found)
        if reasons and len(reasons) < _ENOUGH:
            nodes = [f for f in reader.list(kinds.NODE) if isinstance(f, KubeObject)]
            if match := peers.addresses_match(seen, request.source_cluster, nodes):
                reasons.append(match)
        if reasons:
            candidates.append((context.name, reasons))
    certain = [c for c in candidates if len(c[1]) >= _ENOUGH]
    if len(certain) == 1:
        name, reasons = certain[0]
        if not asked.quiet:
            say(f"Taking context {name} for the destination's cluster: {'; '.join(reasons)}. (--to-context overrides)")
        readers = {**readers, name: _reader(asked, known, name, deadline)}
        request = dataclasses.replace(request, destination_cluster=name)
        return request, gather(readers, request), readers
    if candidates and not asked.quiet:
        names = ", ".join(name for name, _ in candidates)
        why = f" {unseen[0].reason}." if unseen else ""
        say(f"The destination's cluster is not certain ({names}?):{why} Only {here.name} is read. Say --to-context.")
    return request, (*facts, *unseen), readers


_ENOUGH = 2
_MOST_CONTEXTS = 6


def _open_live(asked: Asked, reader: ApiReader) -> Opener:
    def open_prober(session: Session, flow: Flow) -> Prober | None:
        from mcdoctor.kube import vantage
        from mcdoctor.kube.agent import NoVantage
        from mcdoctor.kube.ephemeral import Place
        from mcdoctor.models.vantage import Vantage
        from mcdoctor.prober.local import LocalProber

        if asked.probe == "none":
            session.why_no_prober = "--probe none: nothing was sent"
            return None
        pod = flow.source_pod
        if pod is None:
            session.why_no_prober = f"{flow.source} has no running pod to send from"
            return None
        here = Vantage(cluster=pod.cluster, namespace=pod.namespace, pod=pod.name, captured=pod.proxy)
        place = Place(cluster=pod.cluster, namespace=pod.namespace, pod=pod.name, node=pod.node, captured=pod.proxy)
        travelling = agent(asked.deadline, raw=asked.profile in _RAW)
        plan = vantage.choose(
            asked.probe,  # type: ignore[arg-type]  # the parser admits these words only
            reader.api,
            place,
            travelling,
            image=asked.image,
            profile=asked.profile,  # type: ignore[arg-type]  # likewise
            # this machine speaks for the source only where it is the source
            local=lambda: LocalProber(here if vantage.inside(place) else Vantage(host=socket.gethostname())),
        )
        second: dict[str, vantage.Plan] = {}
        if pod.proxy and plan.kind == "ephemeral":
            second["bypass"] = vantage.choose(
                "ephemeral", reader.api, place, travelling, image=asked.image, bypass=True
            )
        if asked.both and plan.opener is not None:
            second["far"] = _far_plan(session, flow, asked, travelling)
        creates = tuple(sentence for p in (plan, *second.values()) for sentence in p.creates)
        if creates and not _agreed(creates, asked):
            session.why_no_prober = "nothing was created: the answer was no (use --yes, or --probe none)"
            return None
        try:
            prober = _opened(session, plan)
        except NoVantage as failure:
            session.extra.extend(failure.blinds)
            session.why_no_prober = str(failure) or "there is no place to send from"
            return None
        for slot, more in second.items():
            try:
                setattr(session, slot, _opened(session, more))
            except NoVantage as failure:
                session.extra.extend(failure.blinds)
        return prober

    return open_prober


def _opened(session: Session, plan: Plan) -> Prober:
    """Starts what a plan says, and once more should its connection drop; the session ends it. Raises NoVantage."""
    from mcdoctor.kube.lasting import lasting

    opened = lasting(plan.open(), plan.again, say)

    def close() -> None:
        for line in opened.close():
            say(line)

    session.closers.append(close)
    session.extra.extend(opened.limits)
    return opened.prober


def _far_plan(session: Session, flow: Flow, asked: Asked, travelling: Agent) -> Plan:
    """A debug container beside the first ready backend, in the destination's cluster."""
    from mcdoctor.kube import vantage
    from mcdoctor.kube.ephemeral import Place
    from mcdoctor.kube.reader import ApiReader

    reader = next((r for r in session.readers if r.cluster == flow.destination_cluster), None)
    backend = next((b for b in sorted(flow.backends, key=lambda b: not b.ready) if b.pod), None)
    if backend is None or backend.pod is None or not isinstance(reader, ApiReader):
        say("--both: no pod of the destination is known, so nothing is started there.")
        return vantage.Plan(kind="none")
    namespace, _, name = backend.pod.partition("/")
    place = Place(cluster=reader.cluster, namespace=namespace, pod=name, node=backend.node)
    return vantage.choose("ephemeral", reader.api, place, travelling, image=asked.image)


def agent(deadline: float, *, raw: bool = False) -> Agent:
    """The travelling prober as the kube adapter takes it; `raw`: with what sends packets of its own."""
    from mcdoctor.kube.agent import Agent
    from mcdoctor.kube.streams import ProcessStream
    from mcdoctor.models.vantage import Vantage
    from mcdoctor.prober.archive import archive
    from mcdoctor.prober.bootstrap import command, envelope
    from mcdoctor.prober.client import ProberLost, StreamProber

    def talk(stream: ProcessStream, vantage: Vantage) -> Prober:
        prober = StreamProber(stream.reader, stream.writer, vantage)
        try:
            return prober.start(envelope(archive(raw=raw)), deadline=deadline + _SPARE)
        except ProberLost as error:
            raise OSError(str(error)) from None

    return Agent(command=tuple(command()), talk=talk)


def _agreed(creates: tuple[str, ...], asked: Asked) -> bool:
    """Says what will be created; asks once on a terminal, wants --yes elsewhere."""
    for sentence in creates:
        say(sentence)
    if asked.yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        say("Without a terminal this needs --yes.")
        return False
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


_SPARE = 30.0
_RAW = ("raw", "netadmin", "sysadmin")  # profiles of the debug container that may send packets of their own
