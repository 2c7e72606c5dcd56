"""`mcdoctor probe`: facts as JSON lines or text, exit codes, one clear line for bad input."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from mcdoctor.cli.probe import app
from mcdoctor.models.record import from_record

runner = CliRunner()


@pytest.fixture
def port() -> Iterator[int]:
    """An HTTP server of one answer."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)

    def talk(connection: socket.socket) -> None:
        with connection:
            if connection.recv(65536):
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Served-By: b/p\r\nConnection: close\r\n\r\n\x1b[31m"
                )

    def loop() -> None:
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()
    yield sock.getsockname()[1]
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


@pytest.mark.parametrize("words, kinds", [
    ("tcp 127.0.0.1:{port}", {"tcp_connect"}), ("request http://127.0.0.1:{port}/", {"http_request"}),
    ("request http://127.0.0.1:{port}/ --count 2", {"http_series"}), ("path 127.0.0.1", {"trace"}),
    ("path 127.0.0.1:{port}", {"trace"}), ("tls 127.0.0.1:{port} --timeout 0.5", {"tls_handshake"}),
    ("mtu 127.0.0.1:{port} --timeout 1", {"path_mtu"}), ("dns localhost", {"dns_answer", "resolv_conf"}),
    ("dns x.example --server 127.0.0.1:9", {"dns_answer"}),
    ("environment", {"resolv_conf", "interface", "interception"}),
])  # fmt: skip
def test_json_lines_are_facts_and_text_is_clean(port: int, words: str, kinds: set[str]) -> None:
    argv = words.format(port=port).split()
    done = runner.invoke(app, [*argv, "-o", "json"])
    assert done.exit_code == 0, done.output
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    for fact in facts:
        from_record(fact)
    assert kinds <= {f["kind"] for f in facts}
    text = runner.invoke(app, argv)
    assert text.exit_code == 0
    assert "\x1b" not in text.stdout
    assert all(kind.replace("_", "-") in text.stdout for kind in kinds)


@pytest.mark.parametrize("words", [
    "tcp 127.0.0.1", "tcp 127.0.0.1:x", "tcp :80", "tls 127.0.0.1:0", "request http://x/ -H broken", 
    "mtu 127.0.0.1:99999",
    "dns", "tcp 127.0.0.1:80 --tries 0", "nothing",
])  # fmt: skip
def test_bad_usage_is_exit_code_two(words: str) -> None:
    done = runner.invoke(app, words.split())
    assert done.exit_code == 2
    assert "Traceback" not in done.output


@pytest.mark.parametrize("words", ["request gopher://x/", "dns a..b --server 127.0.0.1", "dns x --server nowhere"])
def test_nothing_seen_is_exit_code_three(words: str) -> None:
    done = runner.invoke(app, words.split())
    assert done.exit_code == 3
    assert done.stdout.startswith("blind")


def test_a_host_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    done = runner.invoke(app, ["tcp", "nowhere.example:80"])
    assert done.exit_code == 3
    assert "Name or service not known" in done.stderr


def test_the_command_imports_nothing_heavy() -> None:
    heavy = {"dns", "scapy", "cryptography", "kubernetes", "ssl"}
    code = f"import sys, mcdoctor.cli.probe; print(*({heavy!r} & {{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == ""
