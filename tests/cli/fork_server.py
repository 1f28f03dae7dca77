"""Runs the command line in forked processes, for tests that kill them: imports are paid for once.

Reads one JSON object a line: arguments, after (seconds, or null), number (a signal), limit (bytes a file may have, or
null), stderr (a file). Answers with the exit code, negative for a signal, and the seconds. With the argument ``cold``
each child imports what it needs: less in all where a server forks one or two.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time

from segcal_cli.cli import entry

WARM = (
    "filelock", "isal.igzip", "nibabel", "rich.progress", "segcal_cli.calibration.result", "segcal_cli.cli.app",
    "segcal_cli.cli.calibrate", "segcal_cli.cli.conformal_sets", "segcal_cli.cli.ntr_interval",
    "segcal_cli.workflows.calibrate_apply", "segcal_cli.workflows.conformal_apply", "segcal_cli.workflows.ratio_apply",
    "scipy.ndimage", "scipy.stats", "scipy.spatial",
)  # fmt: skip
"""What runs import, imported once for all."""


def child(asked: dict) -> None:
    descriptor = os.open(asked["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    if asked["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["limit"], resource.RLIM_INFINITY))
    sys.argv = ["segcal", *asked["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    code = 1
    try:
        entry.main()
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    for name in () if "cold" in sys.argv else WARM:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            child(asked)
        if asked["after"] is not None:
            time.sleep(asked["after"])
            # Not reaped yet, so the id is still the child's even if it has ended.
            os.kill(pid, asked["number"])
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(json.dumps({"code": code, "seconds": time.monotonic() - start}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
