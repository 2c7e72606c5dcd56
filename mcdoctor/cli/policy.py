"""`mcdoctor policy`: is traffic allowed, which rule decides, what would change. Live, from a bundle or from files."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcdoctor.cli.errors import NOT_SETTLED, fail, plain, say

if TYPE_CHECKING:
    from mcdoctor.cli.policy_world import Loaded
    from mcdoctor.policy.engine import Engine
    from mcdoctor.policy.near import NearMiss
    from mcdoctor.policy.path import Answer
    from mcdoctor.policy.question import Question, Source, Target

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Is this traffic allowed, which rule decides, and what would change it.",
)


class Format(enum.StrEnum):
    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class TableFormat(enum.StrEnum):
    TEXT = "text"
    CSV = "csv"
    JSON = "json"


class Language(enum.StrEnum):
    EN = "en"
    KO = "ko"


_WHERE = "Where the objects are"
_WHAT = "What is asked"
Src = Annotated[
    str | None, typer.Argument(metavar="SRC", help="pod, workload, node/NAME or IP: NAME[.NAMESPACE][@CLUSTER]")
]
Dst = Annotated[str | None, typer.Argument(metavar="DST", help="likewise, or svc/NAME, a host name; with :PORT")]
BundlePath = Annotated[Path | None, typer.Option("--bundle", help="recorded clusters")]
Files = Annotated[
    list[Path] | None,
    typer.Option("-f", "--filename", help="manifests, file or folder; repeatable"),
]
Contexts = Annotated[list[str] | None, typer.Option("--context", help="kubeconfig context; repeatable")]
Kubeconfig = Annotated[str | None, typer.Option("--kubeconfig", help="file to read")]
As = Annotated[str | None, typer.Option("--as", help="user to impersonate")]
AsGroup = Annotated[list[str] | None, typer.Option("--as-group", help="group, repeatable")]
Cni = Annotated[
    list[str] | None,
    typer.Option("--cni", help="what enforces policy: NAME, or CLUSTER=NAME; concluded otherwise"),
]
Namespace = Annotated[
    str | None, typer.Option("-n", "--namespace", help="of names without one; the only one that has it, unless given")
]
ToNamespace = Annotated[str | None, typer.Option("--to-namespace", help="of DST")]
Port = Annotated[str | None, typer.Option("--port", help="number or name, when DST does not say")]
Protocol = Annotated[str, typer.Option("--protocol", help="TCP, UDP, SCTP or ICMP")]
Via = Annotated[str | None, typer.Option("--via", help="gateway pod NS/NAME, address, or kind of path")]


@dataclass(frozen=True, slots=True)
class Where:
    bundle: Path | None
    files: Sequence[Path]
    contexts: Sequence[str]
    kubeconfig: str | None
    as_user: str | None
    as_groups: Sequence[str]
    cni: Sequence[str]


def _load(where: Where) -> Loaded:
    """The objects asked for; complains on stderr about every part that could not be read."""
    from mcdoctor.cli.policy_world import read_bundle, read_live

    if where.bundle is not None and (where.files or where.contexts):
        fail("--bundle, --filename and --context exclude each other")
    if where.bundle is not None:
        loaded = read_bundle(where.bundle)
    elif where.files:
        loaded = read_bundle(where.files[0])
        for path in where.files[1:]:
            more = read_bundle(path)
            for name, documents in more.documents.items():
                loaded.documents.setdefault(name, []).extend(documents)
            loaded.problems += more.problems
    else:
        loaded = read_live(list(where.contexts) or [None], where.kubeconfig, where.as_user, where.as_groups)
    for problem in loaded.problems[:20]:
        say(f"not read: {problem}")
    if len(loaded.problems) > 20:
        say(f"not read: {len(loaded.problems) - 20} more")
    return loaded


def _cni(given: Sequence[str]) -> dict[str, str]:
    from mcdoctor.policy.datapath import CNIS

    found = {}
    for text in given:
        cluster, _, name = text.rpartition("=")
        if name not in CNIS:
            fail(f"--cni {text}: not one of {', '.join(CNIS)}")
        found[cluster] = name
    return found


def _engine(where: Where) -> tuple[Engine, Loaded]:
    from mcdoctor.policy.engine import load

    loaded = _load(where)
    engine = load(loaded.inputs(_cni(where.cni)))
    refusals = [r for r in engine.refusals if r.fatal]
    for refusal in refusals[:20]:
        place = f" ({refusal.ref.file}{f':{refusal.ref.line}' if refusal.ref.line else ''})" if refusal.ref.file else ""
        say(f"not counted: {refusal.ref}{place}: {refusal.field or '/'}: {refusal.why}")
    if len(refusals) > 20:
        say(f"not counted: {len(refusals) - 20} more")
    return engine, loaded


def _end(
    text: str, namespace: str | None, engine: Engine, aliases: dict[str, str], beside: str | None = None
) -> tuple[Target, int | str | None]:
    """An end of a question in the target grammar, with `node/NAME` besides. `beside`: the namespace to prefer."""
    from mcdoctor.flow.target import TargetError, parse_target
    from mcdoctor.policy.addresses import parse_ip
    from mcdoctor.policy.question import Address, Fqdn, NodeName, PodName, ServiceName

    if text.startswith(("node/", "no/")):
        name, _, cluster = text.partition("/")[2].partition("@")
        return NodeName(name, aliases.get(cluster, cluster)), None
    try:
        target = parse_target(text)
    except TargetError as error:
        fail(str(error))
    cluster = aliases.get(target.context or "", target.context or "")
    if cluster and cluster not in engine.world.clusters:
        fail(f"{text}: no cluster {cluster} among {', '.join(engine.world.clusters)}")
    port: int | str | None = target.port
    if target.port is not None and target.port.isdigit():
        port = int(target.port)
    if target.form == "address":
        return Address(parse_ip(target.name), cluster), port
    if target.form == "host":
        return Fqdn(target.name), port
    place = target.namespace or namespace or _only_place(text, target.name, cluster, engine, beside)
    known = any(target.namespace in c.namespaces for c in engine.world.clusters.values())
    if target.namespace and target.kind is None and not known:
        return Fqdn(f"{target.name}.{target.namespace}"), port
    if target.kind == "Service":
        return ServiceName(place, target.name, cluster), port
    if target.kind is None:
        named = [c for c in engine.world.clusters.values() if not cluster or c.name == cluster]
        has_pod = any((place, target.name) in c.pods or (place, target.name) in c.by_workload for c in named)
        if not has_pod and any((place, target.name) in c.services for c in named):
            return ServiceName(place, target.name, cluster), port
    return PodName(place, target.name, cluster), port


def _only_place(text: str, name: str, cluster: str, engine: Engine, beside: str | None) -> str:
    """The namespace that has the name; fails where several have it and none of them is preferred."""
    places = sorted(
        {
            place
            for c in engine.world.clusters.values()
            if not cluster or c.name == cluster
            for holder in (c.pods, c.by_workload, c.services)
            for place, found in holder
            if found == name
        }
    )
    if len(places) < 2:
        return places[0] if places else beside or "default"
    if beside not in places:
        names = ", ".join(f"{name}.{place}" for place in places)
        fail(f"{text!r} is in several namespaces: {names}", hint="Say which one, or give --namespace.")
    return str(beside)


def _destination(
    text: str, namespace: str | None, engine: Engine, aliases: dict[str, str], beside: str | None = None
) -> tuple[Target, int | str | None]:
    """A destination without a kind is the Service of that name where there is one."""
    from mcdoctor.policy.question import PodName, ServiceName

    end, port = _end(text, namespace, engine, aliases, beside)
    if isinstance(end, PodName) and "/" not in text:
        for cluster in engine.world.clusters.values():
            if (end.namespace, end.name) in cluster.services and end.cluster in ("", cluster.name):
                return ServiceName(end.namespace, end.name, end.cluster), port
    return end, port


@app.command()
def check(
    source: Src = None,
    destination: Dst = None,
    queries: Annotated[str | None, typer.Option("--queries", help="questions as JSON lines; - for stdin")] = None,
    bundle: BundlePath = None,
    files: Files = None,
    context: Contexts = None,
    kubeconfig: Kubeconfig = None,
    as_user: As = None,
    as_group: AsGroup = None,
    cni: Cni = None,
    namespace: Namespace = None,
    to_namespace: ToNamespace = None,
    port: Port = None,
    protocol: Protocol = "TCP",
    via: Via = None,
    method: Annotated[str | None, typer.Option("--method", help="HTTP method")] = None,
    path: Annotated[str | None, typer.Option("--path", help="HTTP path")] = None,
    host: Annotated[str | None, typer.Option("--host", help="HTTP host")] = None,
    principal: Annotated[str | None, typer.Option("--principal", help="identity presented")] = None,
    mtls: Annotated[bool | None, typer.Option("--mtls/--plaintext", help="concluded otherwise")] = None,
    output: Annotated[Format, typer.Option("-o", "--output")] = Format.TEXT,
    lang: Annotated[Language, typer.Option("--lang", help="of the text")] = Language.EN,
) -> None:
    """May SRC reach DST? Names every side that refuses, the rule, the nearest miss and the smallest change.

    mcdoctor policy check web.shop svc/api.shop:80 --bundle incident/

    mcdoctor policy check --queries questions.jsonl --bundle incident/ -o jsonl

    Exit codes: 0 allowed, 1 denied, 2 usage, 3 conditional or unknown. With --queries: 0 when every line was answered.
    """
    where = Where(bundle, files or (), context or (), kubeconfig, as_user, as_group or (), cni or ())
    if queries is not None:
        if source is not None or destination is not None:
            fail("--queries and SRC DST exclude each other")
        raise typer.Exit(_batch(where, queries, output))
    if source is None or destination is None:
        fail("SRC and DST are needed, or --queries FILE")
    from mcdoctor.policy.path import ask
    from mcdoctor.policy.question import Http

    engine, loaded = _engine(where)
    http = Http(method, path, host) if method or path or host else None
    question = _question(engine, loaded, source, destination, namespace, to_namespace, port, protocol, via)
    from dataclasses import replace

    answer = ask(engine, replace(question, http=http, principal=principal, mtls=mtls))
    _show(engine, answer, output, lang)
    raise typer.Exit(_exit_code(answer))


def _exit_code(answer: Answer) -> int:
    return {"allowed": 0, "denied": 1}.get(str(answer.verdict), NOT_SETTLED)


def _question(
    engine: Engine,
    loaded: Loaded,
    source: str,
    destination: str,
    namespace: str | None,
    to_namespace: str | None,
    port: str | None,
    protocol: str,
    via: str | None,
) -> Question:
    from mcdoctor.policy import batch
    from mcdoctor.policy.fields import Refused
    from mcdoctor.policy.question import Address, NodeName, PodName, Question

    start, _ = _end(source, namespace, engine, loaded.aliases)
    if not isinstance(start, (PodName, Address, NodeName)):
        fail(f"{source}: a source is a pod, a workload, an address or a node")
    beside = getattr(start, "namespace", None)
    end, told = _destination(destination, to_namespace or namespace, engine, loaded.aliases, beside)
    wanted: int | str | None = told
    if wanted is None and port is not None:
        wanted = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else port
    try:
        rest = batch.read(
            {
                "source": {"ip": "0.0.0.0"},
                "destination": {"ip": "0.0.0.0"},
                "protocol": protocol,
                "via": via,
                "port": wanted,
            }
        )
    except Refused as refused:
        fail(f"{refused.pointer.strip('/')}: {refused.why}")
    chosen: Source = start
    return Question(chosen, end, rest.port, rest.protocol, rest.icmp, via=rest.via)


def _batch(where: Where, queries: str, output: Format) -> int:
    """Answers one question a line, in order; the index is built once."""
    from mcdoctor.cli.policy_world import read_text
    from mcdoctor.policy.batch import answer_line, as_line

    # Of a line that is no text the answer says so; JSON strings may hold what else str.splitlines takes for an end.
    lines = read_text(queries).split("\n")
    engine, loaded = _engine(where)
    out = sys.stdout
    answers = (answer_line(engine, line, loaded.aliases) for line in lines if line.strip())
    if output is Format.JSON:
        json.dump(list(answers), out, indent=2)
        out.write("\n")
        return 0
    for answer in answers:
        if output is Format.JSONL:
            out.write(as_line(answer) + "\n")
        else:
            out.write(plain(f"{answer['id']}: {answer['verdict']}: {answer['reason']}") + "\n")
    return 0


def _place(ref: Any) -> str:
    if not ref.file:
        return ""
    return f"  {ref.file}:{ref.line}" if ref.line else f"  {ref.file}"


def _hops(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "at": point.label,
            "cluster": point.cluster,
            "direction": str(point.direction),
            "verdict": str(point.verdict),
            "why": point.why,
            "trace": [
                {"layer": s.layer, "text": s.text, "object": str(s.ref) if s.ref else None, "pointer": s.pointer}
                for s in point.trace
            ],
        }
        for path in answer.paths
        for point in path.points
    ]


def _near(miss: NearMiss) -> dict[str, Any]:
    """A near miss with the change that would let the rule match, as operations of JSON Patch on the objects named."""
    patch = [
        {"object": str(c.ref), "op": c.op, "path": c.pointer} | ({} if c.op == "remove" else {"value": c.value})
        for c in miss.changes
    ]
    return {
        "object": str(miss.ref),
        "cluster": miss.ref.cluster,
        "pointer": miss.pointer,
        "direction": str(miss.direction),
        "why": miss.why,
        "ko": miss.ko,
        "gap": miss.gap,
        "changes": patch,
        "traffic": dict(miss.traffic),
    }


def _show(engine: Engine, answer: Answer, output: Format, lang: Language) -> None:
    from mcdoctor.cli.policy_change import as_json, as_text
    from mcdoctor.policy import batch
    from mcdoctor.policy.smallest import suggest

    if output is Format.JSONL:
        print(json.dumps(batch.to_json(answer), ensure_ascii=False))
        return
    suggestion = suggest(engine, answer)
    if output is Format.JSON:
        body = batch.to_json(answer) | {
            "hops": _hops(answer),
            "near": [_near(miss) for miss in answer.near],
            "notes": list(answer.notes),
            "change": as_json(suggestion),
        }
        print(json.dumps(body, ensure_ascii=False, indent=2))
        return
    korean = lang is Language.KO
    words, verdicts = _WORDS[lang.value], _VERDICTS[lang.value]
    print(plain(f"{verdicts[str(answer.verdict)] if korean else str(answer.verdict).upper()}: {answer.reason}"))
    for path in answer.paths[:10]:
        if korean:
            print(plain(f"{path.source} → {path.destination}" + (f":{path.port}" if path.port else "")))
        else:
            print(plain(f"{path.source} to {path.destination}" + (f" port {path.port}" if path.port else "")))
        for point in path.points:
            if korean:
                place = f"{words[str(point.direction)]}, {words['at']} {point.cluster} ({point.label})"
                print(plain(f"{place}: {verdicts[str(point.verdict)]}"))
            else:
                print(plain(f"{point.direction} at the {point.label} in cluster {point.cluster}: {point.verdict}"))
            for deciding in point.by:
                print("  " + plain(f"{deciding.effect} {deciding.ref} {deciding.pointer}{_place(deciding.ref)}"))
    for miss in answer.near:
        print(plain(f"{words['near']}: {miss.ref} {miss.pointer}: {miss.ko if korean else miss.why}"))
    for line in as_text(suggestion, korean) if suggestion is not None else ():
        print(line)


def _ports_asked(engine: Engine, ports: Sequence[str], protocol: str) -> list[tuple[int, str]]:
    """The ports to compare: those named, else every container port and Service target in the clusters."""
    found: dict[tuple[int, str], None] = {}
    for text in ports:
        number, _, named = text.partition("/")
        if not number.isdigit() or not 1 <= int(number) <= 65535:
            fail(f"--port {text}: not a port number")
        found[int(number), (named or protocol).upper()] = None
    if not found:
        for pod in engine.world.pods():
            found |= {(p.port, p.protocol): None for p in pod.ports if not p.init or p.sidecar}
    return sorted(found)[:20]


def _one_cluster(engine: Engine, wanted: str | None) -> str:
    names = list(engine.world.clusters)
    if wanted is None:
        if len(names) == 1:
            return names[0]
        fail(f"--cluster is needed: {', '.join(names)}")
    if wanted not in names:
        fail(f"no cluster {wanted} among {', '.join(names)}")
    return wanted


ClusterName = Annotated[str | None, typer.Option("--cluster", help="which, when there are several")]
Namespaces = Annotated[list[str] | None, typer.Option("-n", "--namespace", help="only these")]
Ports = Annotated[list[str] | None, typer.Option("--port", help="NUMBER[/PROTOCOL]; repeatable")]


@app.command()
def matrix(
    bundle: BundlePath = None,
    files: Files = None,
    context: Contexts = None,
    kubeconfig: Kubeconfig = None,
    as_user: As = None,
    as_group: AsGroup = None,
    cni: Cni = None,
    cluster: ClusterName = None,
    namespace: Namespaces = None,
    port: Ports = None,
    protocol: Protocol = "TCP",
    output: Annotated[TableFormat, typer.Option("-o", "--output")] = TableFormat.TEXT,
) -> None:
    """Who may reach whom inside a cluster, workload by workload, for one port or every container port.

    mcdoctor policy matrix --bundle incident/ --port 8080 -n shop -o csv
    """
    from mcdoctor.policy.matrix import TooLarge, all_pairs
    from mcdoctor.policy.verdict import Verdict

    where = Where(bundle, files or (), context or (), kubeconfig, as_user, as_group or (), cni or ())
    engine, _ = _engine(where)
    name = _one_cluster(engine, cluster)
    rows: list[dict[str, Any]] = []
    for number, proto in _ports_asked(engine, port or (), protocol) or [(80, "TCP")]:
        try:
            table = all_pairs(engine, name, number, proto, frozenset(namespace or ()))
        except TooLarge as error:
            fail(str(error))
        rows += [
            {"port": number, "protocol": proto, "source": source, "destination": destination}
            | {str(v): counts.get(v, 0) for v in Verdict}
            for (source, destination), counts in sorted(table.cells().items())
        ]
    if output is TableFormat.JSON:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    elif output is TableFormat.CSV:
        import csv

        writer = csv.DictWriter(sys.stdout, ["port", "protocol", "source", "destination", *map(str, Verdict)])
        writer.writeheader()
        writer.writerows({k: plain(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)
    else:
        _print_rows(rows)


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """One line a source, port and outcome: the destinations grouped."""
    from mcdoctor.policy.verdict import Verdict

    grouped: dict[tuple[int, str, str, str], list[str]] = {}
    for row in rows:
        seen = [str(v) for v in Verdict if row[str(v)]]
        outcome = seen[0] if len(seen) == 1 else "mixed (" + ", ".join(f"{row[v]} {v}" for v in seen) + ")"
        grouped.setdefault((row["port"], row["protocol"], row["source"], outcome), []).append(row["destination"])
    for (number, proto, source, outcome), destinations in grouped.items():
        listed = ", ".join(destinations[:8]) + (f" and {len(destinations) - 8} more" if len(destinations) > 8 else "")
        print(plain(f"{proto} {number}  {source}  {outcome} to {len(destinations)}: {listed}"))


@app.command("what-if")
def what_if(
    change: Annotated[list[Path], typer.Option("-f", "--filename", help="objects to add or replace; repeatable")],
    bundle: BundlePath = None,
    context: Contexts = None,
    kubeconfig: Kubeconfig = None,
    as_user: As = None,
    as_group: AsGroup = None,
    cni: Cni = None,
    cluster: ClusterName = None,
    namespace: Namespaces = None,
    port: Ports = None,
    protocol: Protocol = "TCP",
    output: Annotated[TableFormat, typer.Option("-o", "--output")] = TableFormat.TEXT,
) -> None:
    """Which pairs of workloads change when these objects are applied. Nothing is applied.

    mcdoctor policy what-if -f new-policy.yaml --bundle incident/

    Exit codes: 0 nothing changes, 1 something does, 2 usage.
    """
    from mcdoctor.cli.policy_world import read_bundle
    from mcdoctor.policy.engine import load
    from mcdoctor.policy.matrix import TooLarge, all_pairs, changes

    where = Where(bundle, (), context or (), kubeconfig, as_user, as_group or (), cni or ())
    before, loaded = _engine(where)
    name = _one_cluster(before, cluster)
    for path in change:
        added = read_bundle(path)
        for problem in added.problems:
            say(f"not read: {problem}")
        for documents in added.documents.values():
            loaded.documents[name] = [*loaded.documents[name], *documents]  # the later of one name counts
    after = load(loaded.inputs(_cni(where.cni)))
    for refusal in after.refusals:
        if refusal.fatal and refusal not in before.refusals:
            say(f"not counted: {refusal.ref}: {refusal.field or '/'}: {refusal.why}")
    rows: list[dict[str, Any]] = []
    for number, proto in _ports_asked(after, port or (), protocol) or [(80, "TCP")]:
        try:
            pair = [all_pairs(engine, name, number, proto, frozenset(namespace or ())) for engine in (before, after)]
        except TooLarge as error:
            fail(str(error))
        rows += [
            {
                "port": number,
                "protocol": proto,
                "source": each.source,
                "destination": each.destination,
                "before": " ".join(f"{n} {v}" for v, n in each.before.items()),
                "after": " ".join(f"{n} {v}" for v, n in each.after.items()),
            }
            for each in changes(*pair)
        ]
    if output is TableFormat.JSON:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    elif output is TableFormat.CSV:
        import csv

        writer = csv.DictWriter(sys.stdout, ["port", "protocol", "source", "destination", "before", "after"])
        writer.writeheader()
        writer.writerows(rows)
    else:
        for row in rows:
            told = f"{row['protocol']} {row['port']}  {row['source']} to {row['destination']}"
            print(plain(f"{told}: {row['before']} becomes {row['after']}"))
        if not rows:
            print("nothing changes")
    raise typer.Exit(1 if rows else 0)


_WORDS = {
    "en": {
        "egress": "leaving",
        "ingress": "arriving",
        "at": "in cluster",
        "none": "no policy applies",
        "hence": "so",
        "near": "nearly",
    },
    "ko": {
        "egress": "나가는 방향",
        "ingress": "들어오는 방향",
        "at": "클러스터",
        "none": "적용되는 정책이 없습니다",
        "hence": "따라서",
        "near": "거의 맞는 규칙",
    },
}
_VERDICTS = {
    "en": {
        "allowed": "allowed",
        "denied": "denied",
        "conditional": "allowed under a condition",
        "unknown": "not settled",
    },
    "ko": {
        "allowed": "허용됩니다",
        "denied": "거부됩니다",
        "conditional": "조건에 따라 달라집니다",
        "unknown": "판단할 수 없습니다",
    },
}


@app.command()
def explain(
    source: Annotated[str, typer.Argument(metavar="SRC", help="as in check")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="as in check")],
    bundle: BundlePath = None,
    files: Files = None,
    context: Contexts = None,
    kubeconfig: Kubeconfig = None,
    as_user: As = None,
    as_group: AsGroup = None,
    cni: Cni = None,
    namespace: Namespace = None,
    to_namespace: ToNamespace = None,
    port: Port = None,
    protocol: Protocol = "TCP",
    via: Via = None,
    lang: Annotated[Language, typer.Option("--lang")] = Language.EN,
) -> None:
    """How the verdict comes about: every hop, every layer, every policy that was looked at.

    mcdoctor policy explain web.shop svc/api.shop:80 --bundle incident/ --lang ko
    """
    from mcdoctor.policy.path import ask

    where = Where(bundle, files or (), context or (), kubeconfig, as_user, as_group or (), cni or ())
    engine, loaded = _engine(where)
    answer = ask(engine, _question(engine, loaded, source, destination, namespace, to_namespace, port, protocol, via))
    words, verdicts = _WORDS[lang.value], _VERDICTS[lang.value]
    for path in answer.paths:
        print(plain(f"{path.source} → {path.destination}" + (f":{path.port}" if path.port else "")))
        for number, point in enumerate(path.points, 1):
            system = ", ".join(engine.world.clusters[point.cluster].datapath.systems)
            direction = words[str(point.direction)]
            print(plain(f"{number}. {direction}, {words['at']} {point.cluster} ({point.label}; {system})"))
            for step in point.trace:
                print("   - " + plain(f"[{step.layer}] {step.text} {step.pointer}"))
            if not point.trace:
                print(f"   - {words['none']}")
            print("   " + plain(f"{words['hence']}: {verdicts[str(point.verdict)]}: {point.why}"))
    for miss in answer.near:
        told = miss.ko if lang is Language.KO else miss.why
        print(plain(f"{words['near']}: {miss.ref} {miss.pointer}: {told}"))
    print(plain(f"{verdicts[str(answer.verdict)]}: {answer.reason}"))
    raise typer.Exit(_exit_code(answer))
