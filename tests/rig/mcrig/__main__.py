"""`python -m mcrig build|up|down|status|available|exec MACHINE COMMAND…`, with tests/rig on PYTHONPATH."""

from __future__ import annotations

import subprocess
import sys

from mcrig import availability, binaries, images, rig
from mcrig.binaries import RigUnavailable


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def status() -> int:
    running = rig.running()
    if running is None:
        say("the rig is down")
        for line in rig.leftovers():
            say(f"left behind: {line}")
        return 1
    print(f"export KUBECONFIG={running.kubeconfig}")
    for machine in running.machines():
        say(f"{machine.name}: process {machine.pid}")
    return 0


def available() -> int:
    if reasons := availability.reasons(need_cache=True):
        print("the rig cannot run here: " + "; ".join(reasons))
        return 1
    print("the rig can run here")
    return 0


def main(arguments: list[str]) -> int:
    match arguments:
        case ["build"]:
            binaries.ensure(say)
            images.ensure(say)
            return 0
        case ["up"]:
            rig.up(say)
            return status()
        case ["down"]:
            rig.down()
            return 1 if rig.leftovers() else 0
        case ["status"]:
            return status()
        case ["available"]:
            return available()
        case ["exec", name, *command] if command and (running := rig.running()):
            machine = next((machine for machine in running.machines() if machine.name == name), None)
            if machine is None:
                say(f"no machine {name}; there are {', '.join(m.name for m in running.machines())}")
                return 2
            return subprocess.run(machine.command(*command)).returncode
    say(__doc__ or "")
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RigUnavailable as error:
        say(f"rig: {error}")
        sys.exit(1)
