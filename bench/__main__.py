"""``python -m bench [PART ...]``: see the package."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from pathlib import Path

from bench import namespaces, peers
from bench.host import Host
from bench.results import Results
from bench.run import PROJECT, Run

PARTS = ("attach", "bulk", "ports", "traffic", "connections", "runtimes")
MODULES = {"connections": "traffic"}


def main() -> int:
    """Measure, and write the report. The exit status counts the parts that failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {', '.join(PARTS)}; or: report")
    parser.add_argument("--out", type=Path, help="where the results go")
    chosen = parser.parse_args()
    unknown = set(chosen.parts) - {*PARTS, "report"}
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that what is begun is cleaned up
    quick = os.environ.get("BENCH_QUICK", "") not in ("", "0")
    out = chosen.out or PROJECT / ("build/bench" if quick else "docs/benchmarks")
    results = Results(out / "results.json")
    failed = []
    wanted = [part for part in PARTS if part in chosen.parts or not chosen.parts]
    if wanted:
        if os.geteuid():
            print("the benchmark makes namespaces, which needs root", file=sys.stderr)
            return 2
        run = Run(results, peers.prepare(lambda text: print(text, flush=True)), quick=quick)
        failed = [part for part in wanted if not _measure(run, part)]
        results = run.results
    from bench import report

    report.write(results, out)
    print(f"written to {out}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return len(failed)


def _measure(run: Run, part: str) -> bool:
    """Measure one part, in a process namespace that ends with it."""
    run.say(f"{part}:")
    measured = importlib.import_module(f"bench.{MODULES.get(part, part)}")

    def in_child() -> None:
        run.begin(part)
        start = time.monotonic()
        try:
            getattr(measured, "measure_" + part if part in MODULES else "measure")(run)
        finally:
            run.results.parts[part]["seconds"] = round(time.monotonic() - start, 1)
            run.results.save()

    namespaces.remove_cgroups()  # of a run that was killed
    # The kernel may be clearing away the thousands of namespaces of the part before for a minute, and holds up everybody.
    namespaces.in_process_namespace(lambda: Host().settle())
    try:
        status = namespaces.in_process_namespace(in_child)
    finally:
        namespaces.remove_cgroups()
    run.results = Results(run.results.path)  # what the child has written
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
