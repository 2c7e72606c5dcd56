"""Room mtu: whether packets of full size arrive, and why not."""

from mcdoctor.check import Check
from mcdoctor.models.facts import (
    Capture,
    DnsAnswer,
    Interception,
    Interface,
    KubeObject,
    NodeFact,
    PacketFilter,
    PathMtu,
    ResolvConf,
    TcpConnect,
    Trace,
)
from mcdoctor_checks.mtu import judge, probe

mtu_path_carries_full_packets = Check(
    id="mtu-path-carries-full-packets",
    title="packets of full size arrive, or the sender is told",
    probe=probe.probe,
    judge=judge.judge_path,
    gives=(PathMtu, Interface),
    uses=(TcpConnect, DnsAnswer, ResolvConf, Interception, KubeObject, NodeFact, PacketFilter, Trace, Capture),
    findings=judge.PATH_FINDINGS,
    timeout=8.0,
    doc="""
## What it does
Sends packets of growing size that may not be fragmented, by UDP, ICMP and a TCP stream on the real port, with small
packets between them, and tells apart: fine · smaller and signalled · a black hole · loss of any size · not settled.
TCP on the real port decides where it carried the largest segment that both ends agreed on. Around a black hole it looks
for what parts its causes: an ICMP error that somebody else received or a capture saw, a tunnel whose overhead is just
what is missing, nodes with different interface sizes, a segment size that nothing lowers.

## Why it matters
A black hole lets handshakes and health checks through and hangs on the first large request or answer. Nothing is
logged.

## What can go wrong
Packets above a size vanish without an ICMP error. A smaller path of which the sender is told is healthy and only noted,
as is one that loses large datagrams while TCP segments fit. Loss that does not follow size is another fault.

## What it needs
A prober in the source's pod; no privilege. TCP facts of a captured pod end at its proxy and are not used; UDP and ICMP
are not captured.
""",
)

CHECKS: tuple[Check, ...] = (mtu_path_carries_full_packets,)
