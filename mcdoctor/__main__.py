"""Entry points. Nothing heavy is imported before it is known what is asked for."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The command `mcdoctor`, also as the kubectl plug-in `kubectl mcdoctor`."""
    try:
        from mcdoctor.cli.app import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # before a command began: imports take most of that time
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(130)  # Python turns an exit after an interrupted import into a death by signal


def complete() -> None:
    """`kubectl_complete-mcdoctor`: completion of `kubectl mcdoctor …`, one candidate a line."""
    from mcdoctor.cli.completion import complete_for_kubectl

    sys.exit(complete_for_kubectl(sys.argv[1:]))


if __name__ == "__main__":
    main()
