"""Ctrl-C and closed pipes: said once, exit code 130, what was found so far, and never `healthy` after half a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from mcdoctor.check import Check
from mcdoctor.cli.wiring import Session
from mcdoctor.flow import FlowRequest, parse_target
from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Verdict
from mcdoctor.models.outcome import Passed
from mcdoctor.models.playbook import Library
from mcdoctor.reports import render
from mcdoctor.runner.run import conclude

ARGV = [sys.executable, "-m", "mcdoctor", "diagnose", "frontend", "backend", "--lab", "healthy"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.8, 2.0])
def test_a_signal_is_told_once_and_ends_with_130(delay, sign):
    process = subprocess.Popen(ARGV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    if process.poll() is not None:
        pytest.skip("the run was over by then")
    process.send_signal(sign)
    out, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    if process.returncode == 0:
        pytest.skip("the run was over by then")
    if "interrupted" in out + err:  # else the signal came before Python had begun
        assert process.returncode == 130
        assert (out + err).count("interrupted") == 1
        assert "HEALTHY" not in out


def passed(_facts):
    return Passed()


def test_half_a_run_is_never_healthy():
    check = Check(id="request-reaches-backend", title="the request gets through", judge=passed)
    flow = Flow(source_text="a", destination_text="b")
    whole = conclude([check], [], flow, Library())
    half = conclude([check], [], flow, Library(), interrupted=True)
    assert (whole.verdict, half.verdict) == (Verdict.HEALTHY, Verdict.INCONCLUSIVE)
    printed = " ".join(render(half, library=Library(), color=False, width=80).split())
    assert "not all checks had run" in printed
    assert "HEALTHY" not in printed


def test_a_second_interrupt_while_closing_cuts_one_wait_short_not_the_rest():
    request = FlowRequest(
        source=parse_target("a"), destination=parse_target("b"), source_cluster="x", destination_cluster=None
    )
    session = Session(request=request, facts=(), opener=lambda _s, _f: None, means="")
    closed = []

    def interrupted():
        raise KeyboardInterrupt

    session.closers.extend([lambda: closed.append("lab"), interrupted])
    with pytest.raises(KeyboardInterrupt):
        session.close()
    assert closed == ["lab"]


def test_a_closed_pipe_keeps_the_exit_code(tmp_path):
    """`mcdoctor … | head -1` must not turn a broken path into exit code 0."""
    bundle = tmp_path / "b"
    (bundle / "clusters/a/objects").mkdir(parents=True)
    (bundle / "clusters/a/objects/o.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: backend, namespace: app}\n"
        "spec: {selector: {app: b}, ports: [{port: 80}], clusterIP: 10.96.0.1}\n---\n"
        "apiVersion: v1\nkind: Pod\nmetadata: {name: frontend, namespace: app}\n"
        "status: {phase: Running, podIP: 10.1.0.1}\n"
    )
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "mcdoctor", "replay", str(bundle), "frontend", "backend", "--complete", "*"],
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(write)
    assert "Traceback" not in ran.stderr
    assert ran.returncode in (1, 3)
