"""Runs a command inside a host of the lab: `enter.py [--all-capabilities] PID COMMAND…`.

A file of its own, standard library only and started with `python -I -S`, because it is in front of every probe. The
command keeps the caller's working folder, environment and user; of the capabilities it keeps those that concern files,
unless all are asked for, so that a probe is as restricted in the lab as in a debug container.
"""

import ctypes
import os
import sys

_PR_CAPBSET_DROP = 24
_CA = "/etc/lab/ca.crt"
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
_KEPT = {1, 2}  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: root may have to read files of somebody else's home


def _environment() -> dict[str, str]:
    """The caller's, but for its proxies, which are not reachable from here, and with the lab's CA."""
    kept = {k: v for k, v in os.environ.items() if k.lower() not in _PROXIES}
    if os.path.exists(_CA):  # noqa: PTH110 - pathlib would double the start time
        kept |= {"SSL_CERT_FILE": _CA, "CURL_CA_BUNDLE": _CA}
    return kept


def main(arguments: list[str]) -> int:
    everything = arguments[:1] == ["--all-capabilities"]
    pid, *command = arguments[everything:]
    libc = ctypes.CDLL(None, use_errno=True)
    folder = os.getcwd()  # noqa: PTH109
    try:
        for kind in ("user", "net", "uts", "mnt"):
            theirs = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(theirs).st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino:  # noqa: PTH116
                continue
            if libc.setns(theirs, 0) < 0:
                error = ctypes.get_errno()
                raise OSError(error, f"cannot enter the {kind} namespace of process {pid}: {os.strerror(error)}")
        if not everything:
            for capability in range(64):
                if capability not in _KEPT:
                    libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.chdir(folder)
        os.execvpe(command[0], command, _environment())  # noqa: S606
    except FileNotFoundError as error:
        gone = str(error.filename or "").startswith("/proc/")
        print("the lab is not running any more" if gone else f"{command[0]}: not found", file=sys.stderr)
        return 127
    except OSError as error:
        print(f"{error.strerror}", file=sys.stderr)
        return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
