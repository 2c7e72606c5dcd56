"""How the agent gets into a place that has only Python: a one-line program that reads the zip from its stdin.

Nothing is written to disk where memfd_create works, so a read-only root file system is enough. The stream is one line
`LENGTH ENCODING\\n` (`raw` or `b64`), that many bytes, and from then on the agent's own lines. When nobody sends it
within 90 s, it ends: a container whose creator died before attaching must not stay (process 1 needs a handler for
that).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

# kept short and free of quotes that shells would fight over; 3.11 is checked here since the agent's own code cannot be
PROGRAM = """
import sys,os,signal
def stop(*words): print("mcdoctor:",*words,flush=True); sys.exit(3)
if sys.version_info<(3,11): stop("Python 3.11 or newer is needed, this image has",sys.version.split()[0])
signal.signal(14,lambda *_:os._exit(3)); signal.alarm(90)
r=sys.stdin.buffer
h=r.readline().split()
if len(h)!=2: stop("the prober was not sent")
n=int(h[0]); b=r.read(n)
if len(b)<n: stop("the prober was cut short on its way:",len(b),"of",n,"bytes")
signal.alarm(0)
if h[1]==b"b64":
    import base64; b=base64.b64decode(b)
p=None
try:
    f=os.memfd_create("mcdoctor"); p="/proc/self/fd/%d"%f; open(p,"wb").write(b); open(p,"rb").close()
except (OSError,AttributeError):
    p=None
    for d in ("/dev/shm","/tmp","/var/tmp",os.getcwd()):
        try:
            q=os.path.join(d,"mcdoctor-%d.zip"%os.getpid())
            with open(os.open(q,os.O_CREAT|os.O_EXCL|os.O_RDWR,0o600),"wb") as f: f.write(b)
            p=q; break
        except OSError: pass
if p is None: stop("no place for the prober: memfd_create, /dev/shm and /tmp all fail")
sys.path.insert(0,p)
from mcdoctor.prober.agent import main
main(r)
""".strip()


def command(python: str = "python3") -> list[str]:
    """The command of the debug container."""
    return [python, "-I", "-B", "-c", PROGRAM]


def envelope(archive: bytes, *, binary: bool = False) -> bytes:
    """The archive as PROGRAM reads it. `binary` only over channels that carry all bytes unchanged."""
    body = archive if binary else base64.b64encode(archive)
    return f"{len(body)} {'raw' if binary else 'b64'}\n".encode() + body


def shell_words(argv: Sequence[str]) -> str:
    """The command for a person to paste."""
    import shlex

    return shlex.join(argv)
