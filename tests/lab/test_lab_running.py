"""Labs that run: real kernels at both ends of the simulated network."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mcdoctor.lab import Lab, LabFailed, RunningLab, available, folder
from mcdoctor.lab.running import found

from .conftest import Starter, text_of

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
SERVER, SERVICE = "10.20.0.1", "10.110.0.1"

PRELUDE = """
import errno, json, os, socket, struct, sys, time
IP_MTU_DISCOVER, IP_RECVERR, MSG_ERRQUEUE, SIOCOUTQ = 10, 11, 0x2000, 0x5411
def connect(address, port, timeout=2.0):
    started = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout) as sock:
            try:
                sock.getpeername()
            except OSError:  # an ICMP error closed it on another processor; what it was comes a moment later
                raise OSError(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "connect") from None
            return "open", time.monotonic() - started
    except OSError as error:
        name = errno.errorcode[error.errno] if error.errno else "silent"
        return name, time.monotonic() - started
def ping(address, size, wait):
    # (answered, ICMP error) of one echo with DF on a socket of its own
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as s:
        s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 3)
        s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        s.settimeout(wait)
        s.connect((address, 0))
        s.send(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + bytes(size - 28))
        try:
            s.recv(9000)
            return True, None
        except TimeoutError:
            return False, None
        except OSError:
            _, control, _, _ = s.recvmsg(9000, 512, MSG_ERRQUEUE)
            _, _, kind, code, _, info, _ = struct.unpack_from("=IBBBBII", control[0][2])
            return False, [kind, code, info]
def fetch(path, wait):
    # bytes of the body that came within `wait` seconds of silence
    with socket.create_connection(("10.20.0.1", 8080), 2) as s:
        s.settimeout(wait)
        s.sendall(b"GET " + path + b" HTTP/1.0\\r\\n\\r\\n")
        got = b""
        try:
            while part := s.recv(65536):
                got += part
        except TimeoutError:
            pass
        return len(got.partition(b"\\r\\n\\r\\n")[2])
"""


def inside(lab: RunningLab, code: str, host: str = "client", **kw: bool) -> object:
    """The JSON that Python code printed inside a host."""
    done = subprocess.run(
        [*lab.argv_of_host(host, **kw), sys.executable, "-I", "-c", PRELUDE + f"print(json.dumps({code}))"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pids_of(lab: RunningLab) -> list[int]:
    return [lab.pid, *lab.hosts.values()]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], within: float = 3.0) -> bool:
    end = time.monotonic() + within
    while any(running(p) for p in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# --- start and end --------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_starts_quickly_with_all_servers_listening() -> None:
    """In processor time, which other work on the machine does not change much; `make bench` has the wall clock."""
    if reason := available():
        pytest.skip(reason)
    with Lab(folder("default")).start() as lab:
        pids = pids_of(lab)
        assert sum(map(cpu_seconds, pids)) < 2.0
        assert lab.alive()
        assert lab.clusters == ("cluster-a", "cluster-b")
        assert any(pod.startswith("shop/frontend-") for _, pod in lab.pods())
    assert not any(running(p) for p in pids)


def test_the_world_of_a_pod(start: Starter) -> None:
    lab = start()
    files = inside(lab, "[open(f'/etc/{n}').read() for n in ('resolv.conf', 'hosts')] + [socket.gethostname()]")
    assert files == [
        "search shop.svc.cluster.local\nnameserver 10.20.0.1\noptions ndots:5\n",
        "127.0.0.1 localhost\n::1 localhost\n10.10.0.1 client\n",
        "client",
    ]
    assert inside(lab, "sorted(n for _, n in socket.if_nameindex())") == ["eth0", "lo"]
    assert inside(lab, "socket.getaddrinfo('server.test', 80, socket.AF_INET)[0][4]") == ["10.20.0.1", 80]
    assert inside(lab, "[os.getcwd(), os.geteuid() == 0]") == [str(Path.cwd()), True]
    assert lab.argv("cluster-a", "shop/client") == lab.argv_of_host("client")
    with pytest.raises(LookupError, match="no pod shop/nobody of cluster cluster-a"):
        lab.argv("cluster-a", "shop/nobody")


def test_the_host_is_not_touched(start: Starter) -> None:
    """No mount and no file changes, and none of the lab's interfaces or routes is seen outside of it."""
    before = Path("/etc/resolv.conf").read_bytes(), Path("/etc/hosts").read_bytes()
    mounts = {line for line in Path("/proc/self/mounts").read_text().splitlines() if " /etc" in line or " /tmp" in line}
    start()
    assert (Path("/etc/resolv.conf").read_bytes(), Path("/etc/hosts").read_bytes()) == before
    now = Path("/proc/self/mounts").read_text().splitlines()
    assert {line for line in now if " /etc" in line or " /tmp" in line} == mounts
    assert not [p.name for p in Path("/sys/class/net").iterdir() if re.fullmatch(r"h[0-9]+", p.name)]
    assert "0101FEA9" not in Path("/proc/net/route").read_text()  # the gateway, 169.254.1.1


def test_raw_sockets_only_where_asked_for(start: Starter) -> None:
    lab = start()
    code = """[(lambda: (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(), True)[1])()]"""
    assert inside(lab, code, all_capabilities=True) == [True]
    with pytest.raises(AssertionError, match="Operation not permitted"):
        inside(lab, code)


def test_proxies_of_the_caller_are_left_outside(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("KEPT", "yes")
    lab = start()
    done = subprocess.run([*lab.argv_of_host("client"), "env"], capture_output=True, text=True)
    assert "proxy.example" not in done.stdout
    assert "KEPT=yes" in done.stdout


def test_a_command_that_is_not_there(start: Starter) -> None:
    lab = start()
    done = subprocess.run([*lab.argv_of_host("client"), "no-such-command"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (127, "no-such-command: not found\n")
    lab.stop()
    done = subprocess.run([*lab.argv_of_host("client"), "true"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (127, "the lab is not running any more\n")


def test_stop_twice(start: Starter) -> None:
    lab = start()
    pids = pids_of(lab)
    lab.stop()
    assert not any(running(p) for p in pids)
    assert not lab.alive()
    lab.stop()


PARENT = """
import sys, time
from pathlib import Path
from mcdoctor.lab import Lab
lab = Lab(Path(sys.argv[1])).start()
print(lab.pid, *lab.hosts.values(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_parent_dies(start: Starter, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "lab.yaml").write_text(text_of(), encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(running(p) for p in pids)
        parent.send_signal(number)
        parent.wait(5)
    assert gone(pids)


def test_the_hosts_end_with_the_supervisor(start: Starter) -> None:
    lab = start()
    os.kill(lab.pid, signal.SIGKILL)
    assert gone(list(lab.hosts.values()))


def test_a_detached_lab_is_found_again_and_stopped(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(text_of(), encoding="utf-8")
    lab = Lab(tmp_path).start(detached=True)
    try:
        state = tmp_path / "state" / "lab.json"
        assert found(state) is None
        lab.save(state)
        again = found(state)
        assert again is not None
        assert again.alive()
        assert inside(again, "connect('10.20.0.1', 8080)[0]") == "open"
        again.stop()
        assert not any(running(p) for p in pids_of(lab))
        assert found(state) is None
    finally:
        lab.stop()


def test_a_lab_that_cannot_start_says_why(start: Starter, tmp_path: Path) -> None:
    text = text_of().replace("- {port: 7, echo: true}", "- {port: 8080, echo: true}")
    (tmp_path / "lab.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(LabFailed, match=r"host server: .*8080.*address already in use"):
        Lab(tmp_path).start()


# --- what the network does ------------------------------------------------------------------------------------------


def test_tcp_udp_and_services_work(start: Starter) -> None:
    lab = start()
    assert inside(lab, f"[connect('{SERVER}', 8080)[0], connect('{SERVICE}', 80)[0]]") == ["open", "open"]
    assert inside(lab, f"[connect('{SERVER}', 9)[0], connect('{SERVICE}', 81)[0]]") == ["ECONNREFUSED"] * 2
    assert inside(lab, f"connect('{SERVICE}', 82, 0.5)[0]") == "silent"
    assert inside(lab, "connect('10.99.9.9', 80)[0]") == "ENETUNREACH"
    assert inside(lab, "fetch(b'/large', 2)") == 60000


def test_a_black_hole_stalls_what_is_large_and_only_that(start: Starter) -> None:
    lab = start("mtu: 1400, frag_needed: false")
    assert inside(lab, "fetch(b'/healthz', 2)") == 3
    assert inside(lab, "fetch(b'/large', 1.5)") == 0
    assert (
        inside(lab, f"[ping('{SERVER}', n, 0.5) for n in (1400, 1401, 1500)]") == [[True, None]] + [[False, None]] * 2
    )


def test_with_frag_needed_the_same_line_carries_everything(start: Starter) -> None:
    lab = start("mtu: 1400")
    assert inside(lab, "fetch(b'/large', 2)") == 60000
    assert inside(lab, f"[ping('{SERVER}', n, 0.5) for n in (1400, 1401)]") == [[True, None], [False, [3, 4, 1400]]]


def test_frag_needed_that_a_firewall_drops_is_a_black_hole_too(start: Starter) -> None:
    more = "filters:\n  - {at: left, action: drop, protocol: icmp, icmp: [3]}\n"
    lab = start("mtu: 1400, one_way: true", more)
    assert inside(lab, f"[ping('{SERVER}', n, 0.5) for n in (1400, 1401)]") == [[True, None], [False, None]]


def test_loss_is_what_was_asked_for_at_any_size(start: Starter) -> None:
    lab = start("loss: 0.3, one_way: true")
    code = "[sum(ping('10.20.0.1', size, 0.04)[0] for _ in range(100)) for size in (64, 1500)]"
    for answered in inside(lab, code):  # type: ignore[attr-defined]
        assert 50 <= answered <= 90  # 70 expected, a standard deviation of 4.6


def test_delay_is_what_was_asked_for(start: Starter) -> None:
    lab = start("delay_ms: 20")
    times = inside(lab, f"[connect('{SERVER}', 8080)[1] for _ in range(15)]")
    assert isinstance(times, list)
    assert min(times) >= 0.040
    assert statistics.median(times) < 0.050


@pytest.mark.parametrize(
    ("action", "seen"),
    [("drop", "silent"), ("reset", "ECONNREFUSED"), ("reject", "ECONNREFUSED"), ("prohibited", "EHOSTUNREACH")],
)
def test_filters_as_a_client_sees_them(start: Starter, action: str, seen: str) -> None:
    rule = f"{{at: middle, action: {action}, protocol: tcp, destinations: [server], ports: [8080]}}"
    lab = start(more=f"filters:\n  - {rule}\n")
    how, seconds = inside(lab, f"connect('{SERVER}', 8080, 0.6)")  # type: ignore[misc]
    assert how == seen
    assert (seconds >= 0.6) == (seen == "silent")
    assert inside(lab, f"connect('{SERVER}', 22)[0]") == "open"


def test_a_policy_drops_in_silence(start: Starter) -> None:
    rule = "{policy: NetworkPolicy shop/p, cluster: cluster-b, direction: ingress, deny: [{except_ports: [22]}]}"
    lab = start(more=f"enforce:\n  policies:\n    - {rule}\n")
    assert inside(lab, f"[connect('{SERVER}', p, 0.5)[0] for p in (8080, 22)]") == ["silent", "open"]
    assert inside(lab, "connect('10.10.0.1', 8080)[0]", host="server") == "ECONNREFUSED"


def test_packets_are_as_on_a_wire(start: Starter) -> None:
    """The kernel hands over no segment larger than the MTU and no half-made checksum."""
    lab = start()
    listen = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("eth0", 3))
print("ready", flush=True)
sizes = []
while True:
    data = s.recv(65536)
    if data[12:14] == b"\\x08\\x00":
        total = int.from_bytes(data[16:18], "big")
        ip = data[14:14 + total]
        sizes.append(len(data) - 14)
        if ip[9] == 6:
            pseudo = ip[12:20] + bytes((0, 6)) + (total - 20).to_bytes(2, "big") + ip[20:]
            pseudo += b"\\0" * (len(pseudo) % 2)
            words = sum(int.from_bytes(pseudo[i:i + 2], "big") for i in range(0, len(pseudo), 2))
            assert words % 0xFFFF == 0, "checksum"
            if ip[33] & 1 and ip[12:16] == b"\\x0a\\x14\\x00\\x01":
                break
print(max(sizes), flush=True)
"""
    watcher = subprocess.Popen(
        [*lab.argv_of_host("client", all_capabilities=True), sys.executable, "-c", listen],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "ready\n"
    assert inside(lab, "fetch(b'/large', 2)") == 60000
    out, err = watcher.communicate(timeout=10)
    assert (out.strip(), err) == ("1500", "")


def test_many_connections_at_once(start: Starter) -> None:
    lab = start("delay_ms: 5")
    code = """(lambda p: [sum(r == 60000 for r in p.map(lambda _: fetch(b'/large', 5), range(40))), p.shutdown()][0])(
        __import__('concurrent.futures').futures.ThreadPoolExecutor(20))"""
    assert inside(lab, code) == 40


# --- as a plain user ------------------------------------------------------------------------------------------------

AS_NOBODY = """
import json, subprocess, sys, time
from pathlib import Path
from mcdoctor.lab import Lab, available
print(json.dumps(available()))
lab = Lab(Path(sys.argv[1])).start()
with lab:
    code = "import socket,urllib.request as u; print(u.urlopen('http://10.110.0.1/healthz', timeout=2).status)"
    command = [*lab.argv("cluster-a", "shop/client"), sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    print(json.dumps([done.stdout.strip(), done.stderr]))
"""


def plain_user_python() -> str | None:
    """A Python that anybody may run; that of a virtual environment may be in somebody's home."""
    version = f"python3.{sys.version_info.minor}"
    for path in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        parents = Path(path).resolve().parents
        if os.access(path, os.X_OK) and all(p.stat().st_mode & 0o005 == 0o005 for p in parents):
            return path
    return None


def test_a_plain_user_needs_nothing_more(start: Starter) -> None:
    python = plain_user_python()
    if os.geteuid() != 0:
        pytest.skip("these tests run as a plain user already")
    if python is None or shutil.which("setpriv") is None:
        pytest.skip("no Python, or no setpriv, that a plain user may run")
    place = Path(f"/tmp/mcdoctor-lab-test-{os.getpid()}")
    place.mkdir(mode=0o755)
    try:
        place.chmod(0o755)
        (place / "lab.yaml").write_text(text_of(), encoding="utf-8")
        path = [str(ROOT), *(p for p in sys.path if p.endswith("site-packages"))]
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", AS_NOBODY, str(place)],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/", capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    finally:
        shutil.rmtree(place)
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    if (reason := json.loads(lines[0])) is not None:
        pytest.skip(f"a plain user: {reason}")
    assert json.loads(lines[1]) == ["200", ""]


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    program = textwrap.dedent(
        """
        import sys
        from mcdoctor.cli import app, lab
        if not any(group.name == "lab" for group in app.app.registered_groups):
            app.app.add_typer(lab.app, name="lab")
        sys.exit(app.run(["lab", *sys.argv[1:]]))
        """
    )
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, env=environment, timeout=30
        )

    return run


def test_list(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    told = json.loads(command("list", "-o", "json").stdout)
    assert told[0]["name"] == "default"
    assert {"name", "about", "source", "destination", "verdict", "causes", "symptom", "recorded"} == set(told[0])
    assert re.search(r"^default +pmtu-blackhole +\S", command("list").stdout, re.M)


def test_up_shell_down(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    if reason := available():
        pytest.skip(reason)
    try:
        assert command("shell", "frontend").returncode == 2
        up = command("up", "healthy")
        assert (up.returncode, up.stdout) == (0, "")
        assert "frontend" in up.stderr
        again = command("up")
        assert (again.returncode, "running already" in again.stderr) == (2, True)
        inside_shell = command("shell", "frontend", "hostname")
        assert inside_shell.stdout.startswith("frontend-")
        several = command("shell", "backend")
        assert (several.returncode, "several pods" in several.stderr) == (2, True)
        nobody = command("shell", "nobody")
        assert (nobody.returncode, "is called 'nobody'" in nobody.stderr) == (2, True)
    finally:
        down = command("down")
    assert (down.returncode, down.stderr) == (0, "The lab healthy has ended.\n")
    assert command("down").stderr == "No lab is running.\n"


def test_an_unknown_scenario_is_a_usage_error(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = command("up", "heathy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no scenario is called 'heathy'; nearest: healthy" in done.stderr


FORBIDDEN = """
import os
from pathlib import Path
from mcdoctor.lab import available, namespaces
uid, gid = os.getuid(), os.getgid()
namespaces.unshare(namespaces.NEWUSER)
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
Path("/proc/sys/user/max_net_namespaces").write_text("0")
print(available())
"""


def test_where_namespaces_are_forbidden_it_says_why(start: Starter) -> None:
    done = subprocess.run([sys.executable, "-c", FORBIDDEN], capture_output=True, text=True, cwd=ROOT)
    if "Permission denied: '/proc/sys" in done.stderr or "Read-only" in done.stderr:
        pytest.skip("the limits cannot be set here")
    reason = "their number is limited by /proc/sys/user/max_*_namespaces"
    assert done.stdout == f"network namespaces are not allowed here ({reason})\n", done.stderr
