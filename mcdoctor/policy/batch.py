"""Many questions at once: JSON lines in, JSON lines out, one answer a question and in its order.

    {"id", "source": {"pod": "ns/name", "cluster"?} | {"ip"} | {"node"},
     "destination": likewise or {"service": "ns/name"} or {"fqdn"},
     "port", "protocol", "icmp"?: {"family", "type"}, "http"?: {"method", "path", "host", "headers"},
     "mtls"?: bool, "principal"?, "via"?}

    {"id", "verdict": "allowed|denied|conditional|unknown", "egress", "ingress",
     "deciding": [{"kind", "namespace", "name", "pointer", "direction", "effect"}], "reason"}

`via` is a pod, address, node or Service in the form of an end, "ns/name", an address or a kind of path ("flat",
"globalnet", "clustermesh", "istio", "istio-ambient", "linkerd", "relay", "load-balancer"). A line that is no
question is answered with `unknown` and the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import Engine
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.path import Answer, ask
from mcdoctor.policy.ports import TRANSPORTS
from mcdoctor.policy.question import (
    Address,
    Fqdn,
    Http,
    Icmp,
    NodeName,
    PodName,
    Question,
    ServiceName,
    Source,
    Target,
)


def answers(engine: Engine, lines: Iterable[str]) -> Iterator[str]:
    """One line of JSON for each line that is not blank. Never raises for what a line holds."""
    for line in lines:
        if line.strip():
            yield as_line(answer_line(engine, line))


def as_line(answer: dict[str, Any]) -> str:
    """One line of ASCII, whatever the question's id and the objects' names hold."""
    try:
        return json.dumps(answer)
    except RecursionError:  # an id that could just be read
        return json.dumps(answer | {"id": None})


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def answer_line(engine: Engine, line: str, aliases: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The answer to one line. `aliases`: other names of clusters, as kubeconfig contexts -> their names."""
    try:
        raw = json.loads(line.removeprefix("\ufeff"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", error)
        return _not_a_question(None, f"not JSON: {why}")
    if type(raw) is not dict:
        return _not_a_question(None, "not an object")
    try:
        question = read(raw)
    except Refused as refused:
        return _not_a_question(raw.get("id"), f"{refused.pointer}: {refused.why}")
    if aliases:
        known = {alias: name for alias, name in aliases.items() if alias not in engine.world.clusters}
        renamed: dict[str, Any] = {
            place: replace(end, cluster=known[end.cluster])
            for place in ("source", "destination", "via")
            if getattr(end := getattr(question, place), "cluster", "") in known
        }
        question = replace(question, **renamed)
    return to_json(ask(engine, question))


def _not_a_question(id_: object, why: str) -> dict[str, Any]:
    verdict = "unknown"
    return {
        "id": id_,
        "verdict": verdict,
        "egress": verdict,
        "ingress": verdict,
        "deciding": [],
        "reason": f"no question: {why}",
    }


def to_json(answer: Answer) -> dict[str, Any]:
    """The answer in the form of the batch."""
    return {
        "id": answer.question.id,
        "verdict": str(answer.verdict),
        "egress": str(answer.egress),
        "ingress": str(answer.ingress),
        "deciding": [
            {
                "kind": d.ref.kind,
                "namespace": d.ref.namespace,
                "name": d.ref.name,
                "pointer": d.pointer,
                "direction": str(d.direction),
                "effect": d.effect,
            }
            for d in answer.deciding
        ],
        "reason": answer.reason,
    }


def read(raw: dict[str, Any]) -> Question:
    """A question from its JSON form; raises Refused with the field at fault."""
    whole = Field(raw)
    protocol, icmp = _protocol(whole)
    return Question(
        source=_source(whole["source"]),
        destination=_target(whole["destination"]),
        port=None if icmp else _port(whole["port"]),
        protocol=protocol,
        icmp=icmp,
        http=_http(whole["http"]),
        mtls=whole["mtls"].boolean() if whole["mtls"].present else None,
        principal=whole["principal"].text() if whole["principal"].present else None,
        via=_via(whole["via"]),
        id=raw.get("id"),
    )


def _protocol(whole: Field) -> tuple[str, Icmp | None]:
    protocol = whole["protocol"].text("").upper()
    icmp = whole["icmp"]
    if icmp.present or protocol in ("ICMP", "ICMPV6", "ICMPV4"):
        family = icmp["family"]
        default = 6 if protocol == "ICMPV6" else 4
        spelled = str(family.value).lower().removeprefix("ipv") if family.present else str(default)
        if spelled not in ("4", "6"):
            raise Refused(family.pointer, "must be 4 or 6")
        kind = icmp["type"]
        if not kind.present:
            return "ICMP", Icmp(int(spelled))
        named = {"echorequest": (8, 128), "echoreply": (0, 129), "echo-request": (8, 128), "echo-reply": (0, 129)}
        if type(kind.value) is str and kind.value.lower() in named:
            return "ICMP", Icmp(int(spelled), named[kind.value.lower()][spelled == "6"])
        return "ICMP", Icmp(int(spelled), kind.integer())
    if not protocol:
        return "TCP", None
    if protocol not in TRANSPORTS:
        raise Refused("/protocol", f"{protocol!r} is not one of TCP, UDP, SCTP, ICMP")
    return protocol, None


def _port(field: Field) -> int | str | None:
    value = field.value
    if type(value) is str and value.isascii() and value.isdigit():
        value = int(value[:6])  # longer ones are out of range either way
    if value is None or (type(value) is str and value):
        return value
    if type(value) is not int or not 1 <= value <= 65535:
        raise Refused(field.pointer, "must be a port number or name")
    return value


def _named(field: Field) -> tuple[str, str]:
    namespace, slash, name = field.text().partition("/")
    if not slash:
        namespace, name = "default", namespace
    if not name or not namespace or "/" in name:
        raise Refused(field.pointer, f"{field.value!r} is not namespace/name")
    return namespace, name


def _address(field: Field, cluster: str) -> Address:
    try:
        return Address(parse_ip(field.text()), cluster)
    except ValueError:
        raise Refused(field.pointer, f"{field.value!r} is not an IP address") from None


def _source(field: Field) -> Source:
    found = _target(field)
    if isinstance(found, (ServiceName, Fqdn)):
        raise Refused(field.pointer, "a source is a pod, an ip or a node")
    return found


def _target(field: Field) -> Target:
    cluster = field["cluster"].text("")
    if field["pod"].present:
        namespace, name = _named(field["pod"])
        return PodName(namespace, name, cluster)
    if field["ip"].present:
        return _address(field["ip"], cluster)
    if field["node"].present:
        return NodeName(field["node"].text(), cluster)
    if field["service"].present:
        namespace, name = _named(field["service"])
        return ServiceName(namespace, name, cluster)
    if field["fqdn"].present:
        return Fqdn(field["fqdn"].text().rstrip(".").lower())
    raise Refused(
        field.pointer, "must be a pod, an ip, a node, a service or an fqdn" if field.present else "required value"
    )


def _http(field: Field) -> Http | None:
    if not field.present:
        return None

    def text(name: str) -> str | None:
        return field[name].text() if field[name].present else None

    headers = {name.lower(): value for name, value in field["headers"].strings().items()}
    return Http(text("method"), text("path"), text("host"), headers)


def _via(field: Field) -> PodName | Address | NodeName | ServiceName | str | None:
    if not field.present:
        return None
    if type(field.value) is str:
        text = field.text()
        try:
            return Address(parse_ip(text))
        except ValueError:
            pass
        if text.count("/") == 1 and all(text.split("/")):
            return PodName(*text.split("/"))
        return text
    for name in ("carrier", "mode", "type", "interconnect"):
        if field[name].present:
            return field[name].text()
    found = _target(field)
    if isinstance(found, Fqdn):
        raise Refused(field.pointer, "via is a pod, an ip, a node or a service")
    return found
