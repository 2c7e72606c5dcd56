"""The agent and its client: over pipes, from the zip, in a bare Python, with hostile and broken streams."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcdoctor.models.facts import Blind, Clock, Fact, ResolvConf, Sysctl, TcpConnect
from mcdoctor.models.requests import (
    OPERATIONS,
    AskDns,
    ConnectTcp,
    DetectCapture,
    MeasurePathMtu,
    ReadBanner,
    ReadClock,
    ReadInterfaces,
    ReadListeners,
    ReadResolvConf,
    ReadSysctl,
    SendRequest,
    ShakeTls,
    TracePath,
)
from mcdoctor.models.vantage import Vantage
from mcdoctor.net import operations
from mcdoctor.prober import agent as agent_module
from mcdoctor.prober.archive import archive
from mcdoctor.prober.bootstrap import command, envelope
from mcdoctor.prober.client import ProberLost, StreamProber
from mcdoctor.prober.local import LocalProber, spawn

POD = Vantage(cluster="a", namespace="shop", pod="frontend")


def bare(*, python: str = sys.executable, zip_bytes: bytes | None = None, binary: bool = False) -> StreamProber:
    """The agent as a debug container runs it: no site-packages, nothing installed, everything from stdin."""
    words = command(python)
    words.insert(1, "-S")
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", env={"PATH": "/usr/bin"})
    assert process.stdin is not None
    assert process.stdout is not None
    stdout = process.stdout

    def end() -> None:
        process.wait(5)
        stdout.close()

    prober = StreamProber(stdout, process.stdin, POD, on_close=end)
    return prober.start(envelope(archive() if zip_bytes is None else zip_bytes, binary=binary))


@pytest.mark.parametrize("binary", [False, True])
def test_the_zip_runs_in_a_bare_python_every_operation(binary: bool) -> None:
    prober = bare(binary=binary)
    try:
        assert prober.hello.python.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
        requests: list[Any] = [
            ReadResolvConf(), ReadInterfaces(), DetectCapture(), ReadListeners(), ReadClock(now=time.time()),
            ReadSysctl(names=("net.ipv4.ip_forward",)), ConnectTcp(address="127.0.0.1", port=9),
            AskDns(name="x.example", server="127.0.0.1:9"), ShakeTls(address="127.0.0.1", port=9, sni="a.example"),
            SendRequest(url="http://127.0.0.1:9/"), SendRequest(url="https://127.0.0.1:9/", protocol="h2"),
            TracePath(address="127.0.0.1"), ReadBanner(address="127.0.0.1", port=9),
            MeasurePathMtu(address="127.0.0.1", port=9, host="x", timeout=1.0),
        ]  # fmt: skip
        for request in requests:
            facts = prober.run(request, budget=5.0)
            assert facts, request
            for fact in facts:
                assert fact.vantage == POD
                if isinstance(fact, Blind):  # a plain user has no raw sockets; nothing may be missing from the zip
                    assert not re.search("probe failed|No module|time", fact.reason), fact.reason
    finally:
        prober.close()


def python(version: str) -> str:
    """A Python of that version on this machine, from the path or from pyenv; skips without one."""
    found = [str(p) for p in (Path.home() / ".pyenv/versions").glob(f"{version}*/bin/python3")]
    found += [path] if (path := shutil.which(f"python{version}")) else []
    for candidate in found:
        if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    pytest.skip(f"no Python {version} here")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_other_pythons_run_it_too(version: str) -> None:
    prober = bare(python=python(version))
    try:
        (fact,) = prober.run(AskDns(name="x.example", server="127.0.0.1:9"), budget=5.0)
        assert not isinstance(fact, Blind), fact
    finally:
        prober.close()


def test_an_old_python_says_so() -> None:
    with pytest.raises(ProberLost, match=r"Python 3\.11 or newer is needed, this image has 3\.10"):
        bare(python=python("3.10"))


def test_the_zip_is_reproducible_small_and_ours_only() -> None:
    first = archive()
    archive.cache_clear()
    assert hashlib.sha256(first).digest() == hashlib.sha256(archive()).digest()
    assert len(first) < 400_000
    names = zipfile.ZipFile(io.BytesIO(first)).namelist()
    assert {n.partition("/")[0] for n in names} == {"mcdoctor", "dns", "__main__.py"}
    assert not [n for n in names if re.search(r"certificates|client|archive|kube|cli|asyncio|dnssec\.py|resolver", n)]


def test_the_zip_holds_every_module_that_operations_name() -> None:
    names = zipfile.ZipFile(io.BytesIO(archive())).namelist()
    folder = Path(operations.__file__).parent
    ours = {f"mcdoctor/net/{p.name}" for p in folder.glob("*.py")} - {"mcdoctor/net/certificates.py"}
    assert ours <= set(names)
    assert set(operations._OPERATIONS) == set(OPERATIONS)


def test_the_raw_zip_has_the_layers_and_imports_them() -> None:
    data = archive(raw=True)
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert "scapy/layers/inet.py" in names
    assert "scapy/all.py" not in names
    assert len(data) < 1_000_000
    code = "import sys; sys.path.insert(0, sys.argv[1]); import scapy.layers.inet as i; print(bytes(i.IP())[0])"
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"mcdoctor-raw-{os.getpid()}.zip"
    path.write_bytes(data)
    try:
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(path)], capture_output=True, text=True)
        assert done.stdout.strip() == "69", done.stderr
    finally:
        path.unlink()


def test_time_to_the_first_fact() -> None:
    begun = time.monotonic()
    prober = bare()
    facts = prober.run(ConnectTcp(address="127.0.0.1", port=9), budget=5.0)
    seconds = time.monotonic() - begun
    prober.close()
    assert isinstance(facts[0], TcpConnect)
    assert seconds < 3.0  # about 0.15 on a quiet machine


def test_a_read_only_root_is_enough() -> None:
    """memfd only: the program is run where no folder can be written."""
    program = command()[-1]
    assert "memfd_create" in program
    blocked = program.replace('"/dev/shm","/tmp","/var/tmp",os.getcwd()', '"/proc/nowhere"')
    words = [sys.executable, "-I", "-S", "-B", "-c", blocked]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    prober = StreamProber(process.stdout, process.stdin, POD, on_close=process.wait).start(envelope(archive()))
    assert prober.hello.pid == process.pid
    prober.close()
    process.stdout.close()


def test_without_memfd_a_writable_folder_serves(tmp_path: Path) -> None:
    program = command()[-1].replace("os.memfd_create", "os.no_memfd").replace('"/dev/shm","/tmp"', f'"{tmp_path}"')
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    prober = StreamProber(process.stdout, process.stdin, POD, on_close=process.wait).start(envelope(archive()))
    (fact,) = prober.run(ReadClock(now=time.time()), budget=5.0)
    assert isinstance(fact, Clock)
    prober.close()
    process.stdout.close()


@pytest.mark.parametrize("sent, said", [
    (b"", "the prober was not sent"), (b"nonsense\n", "the prober was not sent"),
    (b"100 raw\nabc", "cut short on its way: 3 of 100 bytes"),
])  # fmt: skip
def test_a_bad_envelope_is_told(sent: bytes, said: str) -> None:
    done = subprocess.run([sys.executable, *command()[1:]], input=sent, capture_output=True, timeout=10)
    assert said in done.stdout.decode()
    assert done.returncode == 3


# --- the client ------------------------------------------------------------------------------------------------------


@pytest.fixture
def prober() -> Any:
    with_close = spawn([], POD)
    yield with_close
    with_close.close()


def test_requests_run_side_by_side(prober: StreamProber) -> None:
    begun = time.monotonic()
    results: list[tuple[Fact, ...]] = []
    address = "127.0.0.1"
    import socket

    with socket.socket() as sock:
        sock.bind((address, 0))
        sock.listen(8)
        port = sock.getsockname()[1]
        threads = [
            threading.Thread(
                target=lambda: results.append(prober.run(ReadBanner(address=address, port=port, timeout=0.5), budget=5))
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 8
    assert time.monotonic() - begun < 1.5


def test_a_budget_that_is_over_is_blind(prober: StreamProber) -> None:
    import socket

    assert isinstance(prober.run(ReadResolvConf(), budget=0.0)[0], Blind)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(8)
        begun = time.monotonic()
        facts = prober.run(ReadBanner(address="127.0.0.1", port=sock.getsockname()[1], timeout=30.0), budget=0.3)
    assert time.monotonic() - begun < 2.0
    assert len(facts) == 1


def test_a_lost_stream_ends_open_requests(prober: StreamProber) -> None:
    import socket

    seen: list[tuple[Fact, ...]] = []
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(8)
        request = ReadBanner(address="127.0.0.1", port=sock.getsockname()[1], timeout=20.0)
        thread = threading.Thread(target=lambda: seen.append(prober.run(request, budget=20.0)))
        thread.start()
        time.sleep(0.2)
        os.kill(prober.hello.pid, signal.SIGKILL)
        thread.join(3.0)
    ((blind,),) = seen
    assert isinstance(blind, Blind)
    assert (blind.wanted, blind.reason) == ("banner", "the prober ended")
    assert prober.lost == "the prober ended"
    (after,) = prober.run(ReadResolvConf(), budget=1.0)
    assert isinstance(after, Blind)


def test_sigterm_and_close_end_the_far_end(prober: StreamProber) -> None:
    os.kill(prober.hello.pid, signal.SIGTERM)
    for _ in range(100):
        if prober.lost:
            break
        time.sleep(0.02)
    assert prober.lost is not None
    prober.close()
    prober.close()
    with pytest.raises(ProcessLookupError):
        os.kill(prober.hello.pid, 0)


def test_the_far_end_has_its_own_deadline() -> None:
    prober = spawn([], POD, deadline=0.3)
    begun = time.monotonic()
    while prober.lost is None and time.monotonic() - begun < 3.0:
        time.sleep(0.02)
    assert prober.lost is not None
    prober.close()


def test_a_command_that_does_not_come_up() -> None:
    with pytest.raises(ProberLost, match="No such place"):
        spawn(["sh", "-c", "echo No such place; exit 1", "--"], POD)
    with pytest.raises(ProberLost, match="did not answer within"):
        spawn(["sh", "-c", "sleep 2", "--"], POD, timeout=0.2)
    with pytest.raises(OSError, match="nsenter-nowhere"):
        spawn(["nsenter-nowhere"], POD)


class Script:
    """A far end made of lines that the test wrote; `NONCE` stands for the nonce, which only the start tells."""

    def __init__(self, *lines: bytes) -> None:
        self.lines = list(lines)
        self.nonce = b""
        self.ready = threading.Event()
        self.asked = threading.Event()

    def readline(self, limit: int = -1, /) -> bytes:
        self.ready.wait(2)
        if not self.lines:
            return b""
        line = self.lines.pop(0)
        if b'"id"' in line:
            self.asked.wait(2)
        return line.replace(b"NONCE", self.nonce)

    def write(self, data: bytes, /) -> None:
        for line in data.splitlines():
            message = json.loads(line)
            if "nonce" in message:
                self.nonce = message["nonce"].encode()
                self.ready.set()
            else:
                self.asked.set()

    def flush(self) -> None: ...

    def close(self) -> None: ...


HELLO = b'NONCE {"hello":{"version":"1","python":"3.12","uid":7,"capabilities":["net_raw"],"ping":true}}\n'
FACT = (
    b'{"id":1,"fact":{"kind":"sysctl","at":"2026-01-01T00:00:00Z","vantage":{"pod":"liar"},"name":"a.b","value":"1"}}'
)


def test_text_of_others_is_told_apart_and_the_vantage_is_ours() -> None:
    far = Script(
        b"warning: something\n", HELLO, b'{"id":1,"done":true}\n', b"mcd-0000 " + FACT + b"\n",
        b"no newline before NONCE " + FACT + b"\n", b'NONCE {"id":99,"done":true}\n', b"NONCE [1,2]\n",
        b'NONCE {"id":1,"done":true}\n',
    )  # fmt: skip
    prober = StreamProber(far, far, POD).start()
    assert (prober.hello.uid, prober.hello.capabilities, prober.hello.ping) == (7, ("net_raw",), True)
    facts = prober.run(ReadSysctl(names=("a.b",)), budget=2.0)
    assert [type(f) for f in facts] == [Sysctl]
    assert facts[0].vantage == POD


@pytest.mark.parametrize("line, reason", [
    (b'NONCE {"id":1,"fact":{"kind":"sysctl","at"\n', "cut short"),
    (b"", "the prober ended"),
    (b'NONCE {"id":1,"fact":{"kind":"sysctl"}}\nNONCE {"id":1,"done":true}\n', "cannot be read"),
    (b'NONCE {"id":1,"done":true,"error":"unknown operation"}\n', "the prober refused: unknown operation"),
])  # fmt: skip
def test_partial_and_wrong_answers_are_blind(line: bytes, reason: str) -> None:
    far = Script(HELLO, *line.splitlines(keepends=True))
    prober = StreamProber(far, far, POD).start()
    far.asked.set()
    facts = prober.run(ReadSysctl(names=("a.b",)), budget=1.0)
    assert isinstance(facts[-1], Blind)
    assert any(reason in f.reason for f in facts if isinstance(f, Blind))


@given(
    st.lists(st.binary(max_size=80), max_size=20), st.lists(st.sampled_from([b"", b"NONCE ", b"NONCE {"]), max_size=20)
)
def test_no_bytes_break_the_client(noise: list[bytes], starts: list[bytes]) -> None:
    far = Script(HELLO)
    prober = StreamProber(far, far, POD).start()
    for start, data in zip(starts, noise, strict=False):
        prober._hear(start.replace(b"NONCE", far.nonce) + data + b"\n")


# --- the agent -------------------------------------------------------------------------------------------------------


def talk(*lines: bytes) -> list[dict[str, Any]]:
    """What the agent says to these lines."""
    out: list[bytes] = []
    agent = agent_module.Agent(
        io.BytesIO(b"\n".join(lines) + b"\n"), out.append, {"nonce": "n", "vantage": {"pod": "p"}}
    )
    agent.run()
    for _ in range(200):
        if sum(b'"done"' in line for line in out) >= sum(b'"operation"' in line for line in lines):
            break
        time.sleep(0.01)
    said = []
    for line in out:
        nonce, _, text = line.partition(b" ")
        assert nonce == b"n"
        said.append(json.loads(text))
    return said


def test_the_agent_answers_and_refuses() -> None:
    said = talk(
        b'{"id":1,"operation":"read-resolv-conf","budget":2,"request":{}}', b"nonsense", b"[]", b"",
        b'{"id":2,"operation":"format-disk","request":{}}', b'{"id":3,"operation":"connect-tcp","request":{"port":1}}',
        b'{"id":4,"operation":"connect-tcp","request":{"address":"x","port":1}}',
    )  # fmt: skip
    assert "hello" in said[0]
    by_id: dict[Any, list[dict[str, Any]]] = {}
    for message in said:
        by_id.setdefault(message.get("id"), []).append(message)
    assert by_id[1][0]["fact"]["kind"] == "resolv_conf"
    assert by_id[1][0]["fact"]["vantage"] == {"pod": "p"}
    assert by_id[1][-1]["done"] is True
    assert "unknown operation" in by_id[2][0]["error"]
    assert "address is missing" in by_id[3][0]["error"]
    assert by_id[4][0]["fact"]["kind"] == "blind"
    assert [m["error"] for m in by_id[None] if "error" in m] == [
        "a line is not JSON",
        "a request is an object with an id",
    ]


@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.from_regex(rb'\{"id":[0-9],"operation":"[a-z-]{0,9}".{0,20}\}')),
        max_size=6,
    )
)
def test_no_line_breaks_the_agent(lines: list[bytes]) -> None:
    out: list[bytes] = []
    agent_module.Agent(io.BytesIO(b"\n".join(lines)), out.append, {}).run()
    assert out


# --- in this process -------------------------------------------------------------------------------------------------


def test_the_local_prober() -> None:
    prober = LocalProber(POD)
    (fact,) = prober.run(ReadResolvConf(), budget=2.0)
    assert isinstance(fact, ResolvConf)
    assert isinstance(prober.run(ReadResolvConf(), budget=0.0)[0], Blind)
    prober.close()
    assert isinstance(prober.run(ReadResolvConf(), budget=2.0)[0], Blind)


def test_a_failure_within_an_operation_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    from mcdoctor.net import system

    def fail(*_: Any) -> Any:
        raise RuntimeError("token=abcdef0123456789")

    monkeypatch.setattr(system, "resolv_conf", fail)
    (fact,) = operations.perform(ReadResolvConf(), POD)
    assert isinstance(fact, Blind)
    assert "RuntimeError" in fact.reason
    assert "abcdef0123456789" not in fact.reason
