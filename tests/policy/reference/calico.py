"""Calico, naively: one packet against raw objects, rule by rule, nothing shared with the engine.

docs.tigera.io/calico/latest: reference/resources/{networkpolicy,globalnetworkpolicy,networkset,globalnetworkset,tier}.
All labels are taken as known; ports, ICMP types and addresses are those of one packet over IPv4.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from reference import admin as anp
from reference import kubernetes as np

Objects = list[dict[str, Any]]
NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136}

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*')|has\(\s*(?P<has>[\w./-]+)\s*\)|(?P<all>all\(\s*\))|(?P<global>global\(\s*\))
    |(?P<label>[\w./-]+)\s*(?P<op>==|!=|contains|starts\s*with|ends\s*with|not\s*in|in)
    |(?P<and>&&)|(?P<or>\|\|)|(?P<not>!)|(?P<open>[({])|(?P<close>[)}])|(?P<comma>,))""",
    re.VERBOSE,
)
_OPERATORS = {
    "==": "equal", "!=": "differs", "contains": "contains", "startswith": "starts", "endswith": "ends",
    "in": "among", "notin": "outside",
}  # fmt: skip


class Labels(dict[str, str]):
    """One endpoint's labels with the operators of the selector language; "!= and not in match a missing label"."""

    def equal(self, key: str, value: str) -> bool:
        return self.get(key) == value

    def differs(self, key: str, value: str) -> bool:
        return self.get(key) != value

    def contains(self, key: str, value: str) -> bool:
        return key in self and value in self[key]

    def starts(self, key: str, value: str) -> bool:
        return key in self and self[key].startswith(value)

    def ends(self, key: str, value: str) -> bool:
        return key in self and self[key].endswith(value)

    def among(self, key: str, values: tuple[str, ...]) -> bool:
        return key in self and self[key] in values

    def outside(self, key: str, values: tuple[str, ...]) -> bool:
        return not self.among(key, values)


def selects(selector: str, labels: dict[str, str], everything: bool = True) -> bool:
    """A selector, written over as a Python expression. `everything`: what all() says; global() is its opposite."""
    python, position, pending = [], 0, 0
    while position < len(selector.rstrip()):
        token = _TOKEN.match(selector, position)
        assert token, selector[position:]
        position = token.end()
        found = {k: v for k, v in token.groupdict().items() if v is not None}
        if "text" in found:
            python.append(repr(found["text"][1:-1]) + (")" if pending == 1 else ""))
            pending = 2 if pending == 2 else 0
        elif "label" in found:
            operator = _OPERATORS["".join(found["op"].split())]
            python.append(f"L.{operator}({found['label']!r},")
            pending = 2 if operator in ("among", "outside") else 1
        elif "open" in found:
            python.append("(")
        elif "close" in found:
            python.append(
                ",))"
                if found["close"] == "}" and python[-1] not in ("(", ",")
                else "))"
                if found["close"] == "}"
                else ")"
            )
            pending = 0 if found["close"] == "}" else pending
        elif "has" in found:
            python.append(f"({found['has']!r} in L)")
        else:
            word = next(iter(found))
            python.append({"all": str(everything), "global": str(not everything), "comma": ","}.get(word, f" {word} "))
    return bool(eval("".join(python) or "True", {"L": Labels(labels)}))


def cluster_labels(objects: Objects, namespace: str) -> dict[str, str]:
    return {**np.namespaces(objects)[namespace], "projectcalico.org/name": namespace}


def account_labels(objects: Objects, namespace: str, name: str) -> dict[str, str]:
    for each in objects:
        meta = each["metadata"]
        if each["kind"] == "ServiceAccount" and (meta["namespace"], meta["name"]) == (namespace, name):
            return {**meta.get("labels", {}), "projectcalico.org/name": name}
    raise AssertionError(name)


def endpoint_selected(
    objects: Objects, endpoint: dict[str, Any], scope: str, entity: dict[str, Any], selector: str
) -> bool:
    """Is a pod or a network set selected? `scope`: the namespace of a namespaced policy."""
    namespace = endpoint["metadata"].get("namespace", "")
    own = dict(endpoint["metadata"].get("labels") or {})
    if namespace:
        own["projectcalico.org/namespace"] = namespace
    pod = endpoint["kind"] == "Pod"
    account = endpoint["spec"].get("serviceAccountName", "default") if pod else ""
    if pod:
        own |= {"projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": account}
    wanted = entity.get("namespaceSelector", "")
    if wanted:
        there = cluster_labels(objects, namespace) if namespace else {}
        if not selects(wanted, there, everything=bool(namespace)):
            return False
    elif scope and namespace != scope:
        return False
    accounts = entity.get("serviceAccounts") or {}
    if accounts.get("names") and account not in accounts["names"]:
        return False
    if accounts.get("selector"):
        labels = account_labels(objects, namespace, account) if pod else {}
        if not selects(accounts["selector"], labels):
            return False
    return selects(selector, own)


def end_selected(objects: Objects, end: Any, scope: str, entity: dict[str, Any], selector: str) -> bool:
    """The end as a pod by its labels, or its address as a member of a network set."""
    if not isinstance(end, str) and not np.host(end) and endpoint_selected(objects, end, scope, entity, selector):
        return True
    addresses = [ipaddress.ip_address(a) for a in np.addresses(end)]
    return any(
        address in ipaddress.ip_network(net)
        for each in objects
        if each["kind"] in ("NetworkSet", "GlobalNetworkSet")
        and endpoint_selected(objects, each, scope, entity, selector)
        for net in each["spec"]["nets"]
        for address in addresses
    )


def port_in(ports: list[Any], end: Any, port: int | None, protocol: str) -> bool:
    for each in ports:
        if isinstance(each, int):
            found = each == port
        elif ":" in each:
            low, high = map(int, each.split(":"))
            found = port is not None and low <= port <= high
        else:
            found = port is not None and np.port_matches({"port": each, "protocol": protocol}, end, port, protocol)
            found = found and not np.host(end)
        if found:
            return True
    return False


def entity_matches(
    objects: Objects, entity: dict[str, Any], end: Any, namespace: str, port: int | None, protocol: str
) -> bool:
    addresses = [ipaddress.ip_address(a) for a in np.addresses(end)]
    for key in ("nets", "notNets"):
        nets = [ipaddress.ip_network(n) for n in entity.get(key) or []]
        if nets and all(net.version == 6 for net in nets):
            return False  # such a rule is not rendered for IPv4
        inside = any(address in net for net in nets for address in addresses)
        if nets and inside is (key == "notNets"):
            return False
    if entity.get("ports") and not port_in(entity["ports"], end, port, protocol):
        return False
    if entity.get("notPorts") and port_in(entity["notPorts"], end, port, protocol):
        return False
    # "if any of the selector fields is used in a namespaced policy, endpoints are limited to the namespace"
    accounts = entity.get("serviceAccounts") or {}
    used = any(entity.get(key) for key in ("selector", "namespaceSelector")) or any(accounts.values())
    limited = used or (namespace and entity.get("notSelector"))
    if limited and not end_selected(objects, end, namespace, entity, entity.get("selector", "")):
        return False
    excluded = entity.get("notSelector")
    return not (excluded and end_selected(objects, end, "", {}, excluded))


def rule_matches(
    objects: Objects, rule: dict[str, Any], namespace: str, source: Any, destination: Any, port: int | None,
    protocol: str, icmp: int | None,
) -> bool:  # fmt: skip
    number = NUMBERS[protocol]
    wanted, unwanted = rule.get("protocol"), rule.get("notProtocol")
    if wanted is not None and NUMBERS.get(wanted, wanted) != number:
        return False
    if unwanted is not None and NUMBERS.get(unwanted, unwanted) == number:
        return False
    if rule.get("ipVersion", 4) != 4:
        return False
    if rule.get("icmp") and rule["icmp"].get("type", icmp) != icmp:
        return False
    if rule.get("notICMP") and "type" in rule["notICMP"] and number == 1 and rule["notICMP"]["type"] == icmp:
        return False
    return entity_matches(objects, rule.get("source") or {}, source, namespace, None, protocol) and entity_matches(
        objects, rule.get("destination") or {}, destination, namespace, port, protocol
    )


def types(spec: dict[str, Any]) -> list[str]:
    """ "Ingress if there is no egress rule, Egress if there are only egress rules, else both"."""
    if spec.get("types"):
        return list(spec["types"])
    if not spec.get("egress"):
        return ["Ingress"]
    return ["Ingress", "Egress"] if spec.get("ingress") else ["Egress"]


def applies(objects: Objects, policy: dict[str, Any], pod: dict[str, Any], direction: str) -> bool:
    spec, namespace = policy["spec"], policy["metadata"].get("namespace", "")
    entity = {
        "namespaceSelector": spec.get("namespaceSelector", ""),
        "serviceAccounts": {"selector": spec.get("serviceAccountSelector", "")},
    }
    return direction in types(spec) and endpoint_selected(objects, pod, namespace, entity, spec.get("selector", ""))


def direction_verdict(
    objects: Objects, direction: str, source: Any, destination: Any, port: int | None, protocol: str,
    icmp: int | None = None,
) -> tuple[str, set[tuple[str, str]]]:  # fmt: skip
    """(verdict, {(name, pointer)} of the rule that decides, or (name, "") of the policies that isolate)."""
    subject = destination if direction == "Ingress" else source
    if isinstance(subject, str) or np.host(subject):
        return np.ALLOWED, set()
    plain = [o for o in objects if o["apiVersion"] == "networking.k8s.io/v1"]
    rest = [o for o in objects if o["apiVersion"] != "networking.k8s.io/v1"]
    tiers: list[tuple[float, str, str]] = [
        (1e6, "default", "Deny"),
        (1e3, "kube-admin", "Pass"),
        (1e7, "kube-baseline", "Pass"),
    ]
    for each in rest:
        if each["kind"] == "Tier":
            order = each["spec"].get("order", float("inf"))
            tiers.append((order, each["metadata"]["name"], each["spec"].get("defaultAction", "Deny")))
    for _, tier, last in sorted(tiers):
        if tier in ("kube-admin", "kube-baseline"):
            actions = anp.tier(rest, tier == "kube-admin", direction, source, destination, port or 0, protocol)
            assert len(actions) < 2
            if actions & {"Allow", "Deny"}:
                return (np.ALLOWED if actions == {"Allow"} else np.DENIED), {("admin", "")}
            continue
        policies = [
            (
                p["spec"].get("order", float("inf")),
                p["metadata"]["name"],
                p["metadata"].get("namespace", ""),
                p["kind"],
                p,
            )
            for p in rest
            if p["apiVersion"] == "projectcalico.org/v3"
            and p["kind"] in ("NetworkPolicy", "GlobalNetworkPolicy")
            and p["spec"].get("tier", "default") == tier
            and applies(rest, p, subject, direction)
        ]
        if tier == "default":
            policies += [
                (1000.0, "knp.default." + p["metadata"]["name"], p["metadata"]["namespace"], "", p)
                for p in plain
                if p["metadata"]["namespace"] == subject["metadata"]["namespace"]
                and np.selects(p["spec"].get("podSelector"), subject["metadata"]["labels"])
                and direction in np.types(p["spec"])
            ]
        policies.sort(key=lambda item: (item[0], "/".join(item[1:4])))
        action = ""
        for *_, policy in policies:
            name = policy["metadata"]["name"]
            if policy in plain:
                if (
                    np.direction_verdict(
                        [*rest_of(rest), policy], direction, source, destination, port or 0, protocol, True
                    )
                    == np.ALLOWED
                ):
                    return np.ALLOWED, {(name, "*")}
                continue
            for number, rule in enumerate(policy["spec"].get(direction.lower()) or []):
                namespace = policy["metadata"].get("namespace", "")
                if rule_matches(rest, rule, namespace, source, destination, port, protocol, icmp):
                    action = {"Log": ""}.get(rule["action"], rule["action"])
                    if action in ("Allow", "Deny"):
                        by = {(name, f"/spec/{direction.lower()}/{number}")}
                        return (np.ALLOWED if action == "Allow" else np.DENIED), by
                    if action:
                        break
            if action:
                break
        if not action and policies and last == "Deny":
            return np.DENIED, {(p["metadata"]["name"], "") for *_, p in policies}
    return np.ALLOWED, set()


def rest_of(objects: Objects) -> Objects:
    return [o for o in objects if o["kind"] in ("Namespace", "Pod")]
