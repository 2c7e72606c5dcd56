"""Is this traffic allowed, which rule decides, and what is the smallest change that lets it through? Pure code, no I/O.

Use
===
    engine = engine.load([ClusterInput("a", documents), ...])     # raw Kubernetes JSON, compiled once
    answer = path.ask(engine, Question(PodName("shop", "web"), ServiceName("shop", "api"), 80))
    answer.verdict, answer.egress, answer.ingress, answer.deciding, answer.reason

`batch.py` is the same from JSON lines to JSON lines; `smallest.py` proposes changes and verifies them by asking again.

Parts, inner first
==================
    fields      cursor over untrusted JSON with JSON pointers; raises Refused
    verdict     Match, Doubt, Branch, Ruling, Decision, Deciding, Step, Refusal and the algebra over them
    addresses   Ip, Block (integers); atoms of the outside space         ports   PortRange, NamedPort
    world       records of pods, namespaces, nodes, Services; every other object raw in `Cluster.of(group, kind)`
    datapath    which plugin enforces, and the points on which plugins differ
    selectors   label selectors, canonical        index   classes of pods, bitsets, `Room` = one namespace
    question    Question (what is asked), Packet (what one enforcing point sees)
    family      the protocol of a family          families   the tuple of them
    kubernetes, admin, cilium, calico, istio, linkerd      the families
    gateway_routes                                         Gateway API routes, for linkerd
    layers      how families compose              engine   compile and decide
    path        hops between and across clusters, Service translation, the answer
    near        the rules that lack one thing, a module a family; verified by asking again
    edits       what each family offers to change, a module a family
    opened      what a change opens besides       smallest   offers applied, asked again, counted and ranked
    matrix, batch, explain, documents

A family plugs in
=================
A module with `FAMILY = Family(name, kinds, compile)` and one line in `families.FAMILIES`.

`compile(index, cluster, earlier)` parses the cluster's objects of its kinds (`index.world.clusters[cluster].of(group,
kind)`)
and returns a frozen dataclass with `refusals` and `enforce(packet) -> Ruling`. An object that the API server or the
controller would not take becomes a `Refusal(ref, field pointer, why)` and is left out; the rest stands. Parse with
`Field`
and catch `Refused`, nothing else: then a strange object cannot raise anything but `Refused`.
`earlier` holds what was compiled before it for this cluster: Calico and Cilium enforce NetworkPolicy themselves, so
they
take `earlier["kubernetes"]` (use `selecting` and `admits`), Calico also `earlier["admin"]`.

`enforce(packet)` answers for one enforcing point. `packet.direction` says whose policies are meant: EGRESS those of
`packet.source`, INGRESS those of `packet.destination` (`packet.subject`, `packet.peer`). The ends are `Pod | Node |
Outside |
DomainName`. A Pod at the far end means its identity is known there; in another cluster that is ClusterMesh only.
Where a
gateway or a translation hides it, the end is `Outside(ip)`. Mesh families use `packet.client` (the workload whose mesh
identity the connection carries), `packet.mtls` and `packet.principal` (None = conclude from the pods' `mesh`), never
`packet.source` for identity. `packet.http` None or its fields None = not said: then a rule on it is a
`Doubt(..., unseen=False)`.

The return value is a `Ruling`: all outcomes still possible. `Effect.NEXT` = nothing of this family applies, go on. Use
`first_match(rules, otherwise)` for ordered rules and `either`/`both`/`negate` on `Match = bool | Doubt`. Do not
decide between
outcomes yourself: `settle` does. `Doubt(why)` = a fact is missing (unknown); `Doubt(why, unseen=False)` = hangs on the
request or the endpoint (conditional). Never read a Doubt as a bool (it raises); compare with `is True` / `is False`.

`Branch.by` holds `Deciding(ref, pointer, direction, effect)`: effect "allow" | "deny" | "pass" | "audit" | "log"; the
pointer is
RFC 6901 and must resolve in the object: the most exact list item (`/spec/ingress/0/from/1`), for a refusal by
isolation the section that isolates (`/spec/ingress`, else `/spec/policyTypes/0`, else `/spec`) with `implicit=True`.
Where several rules of a union each allow, list one per policy; where isolation refuses, every isolating policy; where
the
first match decides, that rule alone. `Branch.why` is one clause for people.
`Step` is the trace: one per object looked at, cheap to make.

For speed compile selectors to bitsets with `index.label/has/pods/in_namespaces/namespace/cluster`, keep per-class lists
(`index.class_of[pod]`, `index.classes[n]`), and walk only the subject's list in `enforce`. `index` needs no list of
the keys you use.

Layers
======
See `layers.py`. Network systems are derived per cluster (`datapath.systems`): "kubernetes" by default, "cilium" and/or
"calico" where those run; each active one must allow. Within kubernetes and cilium: admin tier, the system, baseline
tier; within calico the tiers are its own business. The family called "admin" implements `admin(packet)` and
`baseline(packet)`
besides `enforce`.
Mesh families "istio" and "linkerd" are asked on top and must allow as well. Loopback and a node's traffic to its own
pods
never reach the network families. A family for whose system the cluster has no plugin is not asked.

Tests
=====
tests/policy/<family>/test_<family>_table.py    a hand-written case for every row of the semantics table, its source
beside it
tests/policy/reference/<family>.py              naive evaluator written straight from the documents, sharing no code
with the
                                                engine (raw dicts in, verdict out), compared by hypothesis over
                                                generated worlds
                                                in tests/policy/<family>/test_<family>_reference.py
tests/policy/<family>/test_<family>_form.py     objects that would be refused, each with its field; fuzzing: nothing
raises
tests/policy/policy_build.py                    short builders of raw objects (pod, namespace, policy)
File names of tests are unique across the tree; counterexamples that hypothesis found are kept as `@example`.
"""
