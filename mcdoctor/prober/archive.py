"""The prober as one zip application: our own modules that travel, dnspython's message part, and scapy layers if asked.

The bytes are the same for the same sources (fixed times and order), so that they can be compared and cached by others.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

_OURS = (
    "__init__", "models/__init__", "models/codec", "models/facts", "models/record", "models/redact",
    "models/requests", "models/vantage", "net/__init__", "net/capture", "net/dns", "net/h2", "net/http", "net/mtu",
    "net/operations", "net/raw", "net/stream", "net/system", "net/tcp", "net/tls", "net/trace", "net/wire",
    "prober/__init__", "prober/agent",
)  # fmt: skip
# what dns.message needs, and the record types that a resolver answers with
_DNS = (
    "__init__", "_features", "_file_util", "_immutable_ctx", "_render_util", "_text_util", "edns", "entropy",
    "enum", "exception", "flags", "immutable", "inet", "ipv4", "ipv6", "message", "name", "opcode", "rcode",
    "rdata", "rdataclass", "rdataset", "rdatatype", "renderer", "rrset", "set", "style", "tokenizer", "tsig", "ttl",
    "update", "version", "wire", "wirebase", "node", "zone", "grange", "transaction", "serial", "rdtypes/__init__",
    "rdtypes/util", "rdtypes/svcbbase", "rdtypes/mxbase", "rdtypes/nsbase", "rdtypes/txtbase", "rdtypes/dsbase",
    "rdtypes/dnskeybase", "rdtypes/euibase", "rdtypes/tlsabase", "rdtypes/ANY/__init__", "rdtypes/ANY/CNAME",
    "rdtypes/ANY/DNAME", "rdtypes/ANY/MX", "rdtypes/ANY/NS", "rdtypes/ANY/OPT", "rdtypes/ANY/PTR",
    "rdtypes/ANY/SOA", "rdtypes/ANY/TSIG", "rdtypes/ANY/TXT", "rdtypes/ANY/RRSIG", "rdtypes/ANY/NSEC",
    "rdtypes/ANY/NSEC3", "rdtypes/ANY/DS", "rdtypes/ANY/DNSKEY", "rdtypes/ANY/CAA", "rdtypes/ANY/HINFO",
    "rdtypes/IN/__init__", "rdtypes/IN/A", "rdtypes/IN/AAAA", "rdtypes/IN/SRV", "rdtypes/IN/SVCB",
    "rdtypes/IN/HTTPS", "rdtypes/IN/NAPTR",
)  # fmt: skip
# what the raw level imports, said by scapy itself: its versions differ
_LIST_SCAPY = (
    "import sys, scapy.layers.inet; "
    "print(*(m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'scapy' and m.__file__), sep=chr(10))"
)
_EPOCH = (1980, 1, 1, 0, 0, 0)


@cache
def archive(*, raw: bool = False) -> bytes:
    """The zip. `raw` packs the scapy layers too: worth it only where the container is granted NET_RAW."""
    entries: dict[str, bytes] = {}
    ours = Path(__file__).resolve().parents[1]
    for name in _OURS:
        entries[f"mcdoctor/{name}.py"] = (ours / f"{name}.py").read_bytes()
    entries |= _part("dns", _DNS)
    if raw:
        entries |= _scapy()
    entries["__main__.py"] = b"from mcdoctor.prober.agent import main\n\nmain()\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for path in sorted(entries):
            out.writestr(zipfile.ZipInfo(path, _EPOCH), entries[path], zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def _root(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {package} is not installed")
    return Path(spec.origin).parent


def _part(package: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """Modules of a package; those that its version does not have are left out."""
    root = _root(package)
    found = {}
    for name in names:
        path = root / f"{name}.py"
        if path.is_file():
            found[f"{package}/{name}.py"] = path.read_bytes()
    return found


def _scapy() -> dict[str, bytes]:
    """The modules that scapy.layers.inet imports, as a process of its own sees them: the import has side effects."""
    root = _root("scapy")
    listed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root.parent)!r}); {_LIST_SCAPY}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    paths = {Path(line) for line in listed.splitlines() if line.endswith(".py")}
    return {f"scapy/{path.relative_to(root).as_posix()}": path.read_bytes() for path in paths}
