"""The live reader against a server that fails in every way: each way has its fact, and none an exception."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mcdoctor.kube.errors import KubeConfigError
from mcdoctor.kube.reader import ApiReader
from mcdoctor.models.facts import Absent, Blind, EndpointAnswer, KubeObject, Listed

SERVICES = "/api/v1/namespaces/shop/services"
IMPORT = "ServiceImport.multicluster.x-k8s.io"


def service(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": {"clusterIP": "10.0.0.1"}, **more}


def listing(*names: str, token: str = "") -> dict[str, Any]:
    metadata = {"resourceVersion": "7", **({"continue": token} if token else {})}
    return {"kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": [service(n) for n in names]}


def groups(*entries: tuple[str, list[str]]) -> dict[str, Any]:
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": name,
                "versions": [{"groupVersion": f"{name}/{v}", "version": v} for v in versions],
                "preferredVersion": {"groupVersion": f"{name}/{versions[0]}", "version": versions[0]},
            }
            for name, versions in entries
        ],
    }


def resources(group: str, version: str, *kinds: tuple[str, str, bool]) -> dict[str, Any]:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}",
        "resources": [
            {"name": plural, "kind": kind, "namespaced": namespaced, "verbs": ["get", "list"]}
            for kind, plural, namespaced in kinds
        ],
    }


def test_an_object_comes_with_its_kind_and_without_bookkeeping(fake):
    body = {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "managedFields": [{"manager": "x"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "keep": "me"},
        },
        "spec": {},
    }
    fake.route(f"{SERVICES}/web", body)
    fact = ApiReader(fake.connect(), "a").get("Service", "shop", "web")
    assert isinstance(fact, KubeObject)
    assert (fact.cluster, fact.kind, fact.namespace, fact.name) == ("a", "Service", "shop", "web")
    assert fact.body["metadata"] == {"name": "web", "namespace": "shop", "annotations": {"keep": "me"}}


def test_items_of_a_list_get_the_kind_that_the_list_does_not_repeat(fake):
    fake.route("/apis/apps/v1/namespaces/shop/deployments", {**listing("web"), "kind": "DeploymentList"})
    facts = ApiReader(fake.connect()).list("Deployment.apps", "shop")
    assert isinstance(facts[0], KubeObject) and facts[0].kind == "Deployment.apps"
    assert facts[0].body["apiVersion"] == "apps/v1"


def test_secrets_are_redacted_where_they_are_read(fake):
    body = {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {"name": "key", "namespace": "shop"},
        "data": {"tls.key": "c2VjcmV0"},
    }
    fake.route("/api/v1/namespaces/shop/secrets/key", body)
    pod = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"containers": [{"name": "c", "env": [{"name": "DB_PASSWORD", "value": "hunter2"}]}]},
    }
    fake.route("/api/v1/namespaces/shop/pods/p", pod)
    reader = ApiReader(fake.connect())
    text = repr(reader.get("Secret", "shop", "key")) + repr(reader.get("Pod", "shop", "p"))
    assert "tls.key" in text and "DB_PASSWORD" in text
    assert "c2VjcmV0" not in text and "hunter2" not in text


def test_a_list_is_read_page_by_page_and_then_known_to_be_whole(fake, reply):
    pages = {None: listing("a", "b", token="next"), "next": listing("c")}
    fake.route(SERVICES, lambda r: reply(body=pages[r.asked("continue")]))
    facts = ApiReader(fake.connect(), "a").list("Service", "shop", labels="app=x", fields="metadata.name=a")
    assert [f.name for f in facts if isinstance(f, KubeObject)] == ["a", "b", "c"]
    end = facts[-1]
    assert isinstance(end, Listed)
    assert (end.count, end.namespace, end.selector, end.field_selector) == (3, "shop", "app=x", "metadata.name=a")
    first, second = fake.asked(SERVICES)
    assert first.asked("limit") == "500" and first.asked("labelSelector") == "app=x"
    assert second.asked("continue") == "next" and second.asked("fieldSelector") == "metadata.name=a"


def test_an_expired_token_means_reading_again_and_whole(fake, reply, failure):
    gone = reply(410, failure(410, "Expired", "The provided continue parameter is too old"))

    def answer(request):
        if request.asked("continue"):
            return gone
        if request.asked("limit"):
            return reply(body=listing("a", token="old"))
        return reply(body=listing("a", "b"))

    fake.route(SERVICES, answer)
    facts = ApiReader(fake.connect()).list("Service", "shop")
    assert [f.name for f in facts if isinstance(f, KubeObject)] == ["a", "b"]
    assert isinstance(facts[-1], Listed) and facts[-1].count == 2


def test_a_later_page_that_fails_keeps_the_pages_before_it_but_claims_no_end(fake, reply, failure):
    def answer(request):
        if request.asked("continue"):
            return reply(500, failure(500, "InternalError", "etcdserver: request timed out"))
        return reply(body=listing("a", token="next"))

    fake.route(SERVICES, answer)
    facts = ApiReader(fake.connect()).list("Service", "shop")
    assert isinstance(facts[0], KubeObject) and isinstance(facts[-1], Blind)
    assert "etcdserver" in facts[-1].reason
    assert not any(isinstance(f, Listed) for f in facts)


def test_no_such_object_is_absent(fake, reply, failure):
    fake.route(
        f"{SERVICES}/web", reply(404, failure(404, "NotFound", 'services "web" not found', name="web", kind="services"))
    )
    fact = ApiReader(fake.connect(), "a").get("Service", "shop", "web")
    assert isinstance(fact, Absent) and (fact.name, fact.namespace, fact.wanted) == ("web", "shop", "Service")


def test_forbidden_is_blind_with_the_verb_and_a_command(fake, reply, failure):
    fake.route("/apis/discovery.k8s.io/v1", reply(403, failure(403, "Forbidden", "no", kind="endpointslices")))
    fact = ApiReader(fake.connect(), "a").list("EndpointSlice.discovery.k8s.io", "shop", labels="a=b c")[0]
    assert isinstance(fact, Blind)
    assert fact.permission == "list endpointslices in shop" and fact.status == 403
    assert fact.command == "kubectl get endpointslices.discovery.k8s.io -n shop -l 'a=b c' --context here -o yaml"


def test_forbidden_about_a_kind_that_nobody_installed_is_absence(fake, reply, failure):
    """Authorisation comes before existence: only discovery tells a missing right from a missing kind."""
    fake.route("/apis/", reply(403, failure(403, "Forbidden", "no")))
    reader = ApiReader(fake.connect())
    assert isinstance(reader.list(IMPORT, "shop")[0], Absent)
    fake.route(
        "/apis", lambda r: reply(body=groups(("multicluster.x-k8s.io", ["v1alpha1"]))) if r.path == "/apis" else None
    )
    fake.route(
        "/apis/multicluster.x-k8s.io/v1alpha1",
        lambda r: (
            reply(body=resources("multicluster.x-k8s.io", "v1alpha1", ("ServiceImport", "serviceimports", True)))
            if r.path.endswith("v1alpha1")
            else reply(403, failure(403, "Forbidden", "no"))
        ),
    )
    fact = ApiReader(fake.connect()).list(IMPORT, "shop")[0]
    assert isinstance(fact, Blind) and fact.permission == "list serviceimports.multicluster.x-k8s.io in shop"


@pytest.mark.parametrize("served", ["v1alpha1", "v1beta1"])
def test_whichever_version_is_served_is_read(fake, reply, served):
    group = "multicluster.x-k8s.io"
    fake.route("/apis", lambda r: reply(body=groups((group, [served]))) if r.path == "/apis" else None)
    fake.route(
        f"/apis/{group}/{served}",
        lambda r: (
            reply(body=resources(group, served, ("ServiceImport", "serviceimports", True)))
            if r.path.endswith(served)
            else None
        ),
    )
    fake.route(
        f"/apis/{group}/{served}/namespaces/shop/serviceimports", {**listing("web"), "kind": "ServiceImportList"}
    )
    facts = ApiReader(fake.connect()).list(IMPORT, "shop")
    assert isinstance(facts[0], KubeObject) and facts[0].kind == IMPORT
    assert facts[0].body["apiVersion"] == f"{group}/{served}"


def test_a_kind_that_is_not_in_the_table_is_found_by_discovery_once(fake, reply):
    fake.route("/apis", lambda r: reply(body=groups(("x.example.com", ["v2", "v1"]))) if r.path == "/apis" else None)
    fake.route(
        "/apis/x.example.com/v2",
        lambda r: reply(body=resources("x.example.com", "v2")) if r.path.endswith("v2") else None,
    )
    fake.route(
        "/apis/x.example.com/v1",
        lambda r: (
            reply(body=resources("x.example.com", "v1", ("Thing", "things", False))) if r.path.endswith("v1") else None
        ),
    )
    fake.route("/apis/x.example.com/v1/things", {**listing("a"), "kind": "ThingList"})
    reader = ApiReader(fake.connect())
    for _ in range(3):
        facts = reader.list("Thing.x.example.com", "shop")
        assert isinstance(facts[-1], Listed) and facts[-1].namespace is None  # not namespaced
    assert len([r for r in fake.requests if r.path == "/apis"]) == 1


def test_many_missing_extensions_cost_one_request(fake):
    reader = ApiReader(fake.connect())
    for kind in (IMPORT, "VirtualService.networking.istio.io", "CiliumNetworkPolicy.cilium.io", "Foo.bar.example"):
        assert isinstance(reader.list(kind, "shop")[0], Absent)
    assert [r.path for r in fake.requests] == ["/apis"]


def test_discovery_that_fails_is_asked_once_and_hides_every_extension(fake, reply, failure):
    fake.route("/apis", reply(401, failure(401, "Unauthorized", "Unauthorized")))
    fake.route(SERVICES, listing("a"))
    reader = ApiReader(fake.connect())
    for kind in (IMPORT, "VirtualService.networking.istio.io", "CiliumNetworkPolicy.cilium.io"):
        fact = reader.list(kind, "shop")[0]
        assert isinstance(fact, Blind) and "API discovery at /apis failed: Unauthorized" in fact.reason
    assert isinstance(reader.list("Service", "shop")[-1], Listed)
    assert len(fake.asked("/apis")) == 1


def test_something_that_is_no_api_server_never_says_absent(fake, reply):
    fake.route("/", reply(404, b"<html>Not Found</html>", {"Content-Type": "text/html"}))
    reader = ApiReader(fake.connect())
    assert isinstance(reader.list(IMPORT, "shop")[0], Blind)
    assert isinstance(reader.list("Service", "shop")[0], Blind)
    assert isinstance(reader.get("Service", "shop", "web"), Blind)


def test_a_login_page_instead_of_an_api_server(fake, reply):
    fake.route("/", reply(302, b"", {"Location": "https://login.example/"}))
    fact = ApiReader(fake.connect()).list("Service", "shop")[0]
    assert isinstance(fact, Blind) and "redirects (302)" in fact.reason


def test_unauthorised_is_blind(fake, reply, failure):
    fake.route("/", reply(401, failure(401, "Unauthorized", "Unauthorized")))
    fact = ApiReader(fake.connect()).get("Service", "shop", "web")
    assert isinstance(fact, Blind) and fact.status == 401 and "credentials" in fact.reason
    assert fact.command == "kubectl auth whoami --context here"


def test_too_many_requests_are_tried_again_when_the_server_says(fake, reply, failure):
    busy = iter([reply(429, failure(429, "TooManyRequests", "busy"), {"Retry-After": "0"})] * 2)
    fake.route(SERVICES, lambda r: next(busy, None) or reply(body=listing("a")))
    facts = ApiReader(fake.connect()).list("Service", "shop")
    assert isinstance(facts[-1], Listed) and len(fake.asked(SERVICES)) == 3


def test_retry_after_beyond_the_deadline_is_not_waited_for(fake, reply, failure):
    fake.route(SERVICES, reply(429, failure(429, "TooManyRequests", "busy"), {"Retry-After": "20"}))
    started = time.monotonic()
    fact = ApiReader(fake.connect(deadline=time.monotonic() + 2)).list("Service", "shop")[0]
    assert isinstance(fact, Blind) and fact.status == 429
    assert time.monotonic() - started < 1.5


def test_a_server_error_is_tried_once_more(fake, reply, failure):
    broken = iter([reply(503, failure(503, "ServiceUnavailable", "starting"))])
    fake.route(SERVICES, lambda r: next(broken, None) or reply(body=listing("a")))
    assert isinstance(ApiReader(fake.connect()).list("Service", "shop")[-1], Listed)
    fake.route(SERVICES, reply(500, failure(500, "InternalError", "boom\x1b[31m\nred")))
    before = len(fake.asked(SERVICES))
    fact = ApiReader(fake.connect()).list("Service", "shop")[0]
    assert isinstance(fact, Blind) and fact.reason == "boom [31m red"
    assert len(fake.asked(SERVICES)) - before == 2


def test_silence_is_blind_within_the_time_out_and_then_not_waited_for_again(fake, reply):
    fake.route("/", reply(delay=5))
    reader = ApiReader(fake.connect(request_timeout=0.4))
    started = time.monotonic()
    facts = [reader.get("Service", "shop", name) for name in ("a", "b", "c", "d", "e")]
    assert time.monotonic() - started < 2.5
    assert all(isinstance(f, Blind) for f in facts)
    assert "did not answer" in facts[0].reason and "not asked again" in facts[-1].reason


def test_a_body_that_drips_ends_by_the_time_out(fake, reply):
    fake.route(SERVICES, reply(body=listing(*"abcdefgh"), drip=0.1))
    started = time.monotonic()
    fact = ApiReader(fake.connect(request_timeout=0.5)).list("Service", "shop")[0]
    assert isinstance(fact, Blind) and "not complete" in fact.reason
    assert time.monotonic() - started < 2


def test_a_cut_body_is_blind(fake, reply):
    fake.route(SERVICES, reply(body=listing("a", "b"), cut=40))
    facts = ApiReader(fake.connect()).list("Service", "shop")
    assert len(facts) == 1 and isinstance(facts[0], Blind) and "cut off" in facts[0].reason


def test_a_body_cut_once_is_read_again(fake, reply):
    cut = iter([reply(body=listing("a", "b"), cut=40)])
    fake.route(SERVICES, lambda r: next(cut, None) or reply(body=listing("a", "b")))
    facts = ApiReader(fake.connect()).list("Service", "shop")
    assert isinstance(facts[-1], Listed) and facts[-1].count == 2


@pytest.mark.parametrize(
    "body", [b"garbage", b"", b"[1, 2]", b'{"kind": "ServiceList"}', b'{"items": {}, "metadata": {}}']
)
def test_nonsense_is_blind(fake, reply, body):
    fake.route(SERVICES, reply(body=body))
    fact = ApiReader(fake.connect()).list("Service", "shop")[0]
    assert isinstance(fact, Blind) and "not a Kubernetes" in fact.reason


def test_a_dead_server_is_one_clear_line(fake):
    api = fake.connect()
    fake.stop()
    reader = ApiReader(api, "a")
    fact = reader.get("Service", "shop", "web")
    assert isinstance(fact, Blind) and "Connection refused" in fact.reason
    with pytest.raises(KubeConfigError, match=r"cluster a \(https://127.*Connection refused"):
        reader.check()


def test_check_knows_a_server_from_a_stranger(fake, reply, failure):
    fake.route("/version", {"major": "1", "minor": "36", "gitVersion": "v1.36.2"})
    assert ApiReader(fake.connect()).check() == "v1.36.2"
    fake.route("/version", reply(body=b"<html>"))
    with pytest.raises(KubeConfigError, match="not a Kubernetes API server"):
        ApiReader(fake.connect()).check()
    fake.route("/version", reply(401, failure(401, "Unauthorized", "Unauthorized")))
    with pytest.raises(KubeConfigError, match="credentials"):
        ApiReader(fake.connect()).check()


def test_impersonation_is_on_every_request_also_websockets(fake, reply, failure):
    fake.route(SERVICES, listing())
    fake.route("/api/v1/namespaces/shop/pods/p/portforward", reply(403, failure(403, "Forbidden", "no")))
    fake.route("/api/v1/namespaces/shop/pods/p:15014/proxy", reply(403, failure(403, "Forbidden", "no")))
    reader = ApiReader(fake.connect(as_user="jane", as_groups=["dev", "ops"]))
    reader.list("Service", "shop")
    reader.ask("shop", "p", 15014, "debug/syncz")
    reader.api.request("PATCH", SERVICES, body={})
    assert len(fake.requests) == 4
    for request in fake.requests:
        assert request.header("Impersonate-User") == ["jane"]
        assert request.header("Impersonate-Group") == ["dev", "ops"]
        assert request.header("Authorization") == ["Bearer t0ken"]


# --- debug endpoints ---


def forwarded(answer: bytes, *, error: bytes = b""):
    def talk(ws):
        port = (15014).to_bytes(2, "little")
        ws.send(b"\x00" + port)
        ws.send(b"\x01" + port)
        if error:
            ws.send(b"\x01" + error)
            return
        request = b""
        while b"\r\n\r\n" not in request:
            request += ws.receive()[1][1:]
        assert request.startswith(b"GET /debug/syncz HTTP/1.1\r\n")
        for i in range(0, len(answer), 1000):
            ws.send(b"\x00" + answer[i : i + 1000])
        ws.close()

    return lambda request: talk if request.header("Upgrade") else None


def http(body: bytes, line: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + line + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body


FORWARD = "/api/v1/namespaces/shop/pods/istiod/portforward"


def test_a_debug_endpoint_is_read_through_port_forward(fake):
    fake.route(FORWARD, forwarded(http(b'[{"proxy": "p", "token": "hunter2"}]' + b" " * 9000)))
    fact = ApiReader(fake.connect(), "a").ask("shop", "istiod", 15014, "/debug/syncz")
    assert isinstance(fact, EndpointAnswer)
    assert (fact.pod, fact.path, fact.body[0]["proxy"]) == ("istiod", "debug/syncz", "p")
    assert "hunter2" not in repr(fact)


def test_without_port_forward_the_pod_proxy_is_tried(fake, reply, failure):
    fake.route(FORWARD, reply(403, failure(403, "Forbidden", "cannot get pods/portforward")))
    fake.route("/api/v1/namespaces/shop/pods/istiod:15014/proxy/debug/syncz", reply(body=b"plain text"))
    fact = ApiReader(fake.connect()).ask("shop", "istiod", 15014, "debug/syncz")
    assert isinstance(fact, EndpointAnswer) and fact.body == "plain text"


def test_without_either_it_is_blind_with_the_right_that_is_missing(fake, reply, failure):
    fake.route(FORWARD, reply(403, failure(403, "Forbidden", "cannot get pods/portforward")))
    fake.route("/api/v1/namespaces/shop/pods/istiod:15014/proxy", reply(403, failure(403, "Forbidden", "no")))
    fact = ApiReader(fake.connect()).ask("shop", "istiod", 15014, "debug/syncz")
    assert isinstance(fact, Blind) and fact.permission == "get and create pods/portforward in shop"
    assert fact.command.startswith("kubectl port-forward -n shop pod/istiod 15014 --context here & curl")


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (forwarded(b"", error=b"connect: connection refused"), "connection refused"),
        (forwarded(http(b"no", b"404 Not Found")), "answered 404"),
        (forwarded(b"SSH-2.0-x\r\n"), "did not answer HTTP"),
        (forwarded(http(b"x" * 50)[:-20]), "did not answer HTTP"),
        (forwarded(b""), "did not answer HTTP"),
    ],
)
def test_a_port_that_does_not_answer_is_blind(fake, route, reason):
    fake.route(FORWARD, route)
    fact = ApiReader(fake.connect()).ask("shop", "istiod", 15014, "debug/syncz")
    assert isinstance(fact, Blind) and reason in fact.reason


def test_a_silent_port_is_blind_by_the_time_out(fake):
    fake.route(FORWARD, lambda r: lambda ws: time.sleep(3))
    started = time.monotonic()
    fact = ApiReader(fake.connect(request_timeout=0.5)).ask("shop", "istiod", 15014, "debug/syncz")
    assert isinstance(fact, Blind) and time.monotonic() - started < 2
