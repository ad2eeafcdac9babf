"""`headrace` and `python -m headrace.pipeline`.

Two verbs go past the command line's library: `serve`, so that a server listens as soon as it can,
and `run-part`, which the supervisor uses to start its children.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 2 bad usage or configuration."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"]:
        from headrace.pipeline.cli.serve import serve_main

        return serve_main(arguments[1:])
    if arguments[:1] == ["run-part"]:
        from headrace.pipeline.host import host_child

        return host_child(int(arguments[arguments.index("--control") + 1]))
    from headrace.pipeline.cli.app import run_app

    return run_app()


if __name__ == "__main__":
    sys.exit(main())
