"""The demonstration: `python -m examples.demo`, or `make demo`.

Every example in turn, each of which checks what it shows.  The status is 0 if all went as they say.
"""

from __future__ import annotations

import importlib
import sys
import time

from examples._common import Surprise

EXAMPLES = (
    ("01_hello_wasi.hello", "A WASI program, run from Python"),
    ("02_policy.summarise", "Real work on real files under a policy, and refused outside it"),
    ("03_timeout.wait", "A time-out ends a guest, whatever it is doing"),
    ("04_library.checksum", "A module as a library"),
    ("05_evil_shim.evil_shim", "A hostile WASI implementation gets nowhere"),
    ("06_echo_server.run", "A Linux server in Wasm, confined to one port and one folder"),
    ("07_wali_program.count", "A program that makes Linux' system calls itself"),
    ("08_reactor.reactor", "Hundreds of guests in one thread, and a pipeline"),
    ("09_view.explore", "A Linux program finds what it was granted, and nothing else"),
    ("10_agent_sandbox.sandbox", "What a language model wrote, with limits and a log"),
    ("11_worker_pool.worker_pool", "A Linux program with threads ends in order at SIGTERM"),
)


def main() -> int:
    """Run them all; the exit status."""
    start = time.monotonic()
    for number, (name, title) in enumerate(EXAMPLES, 1):
        print(f"\n{number}. {title}  [examples/{name.replace('.', '/')}.py]", flush=True)
        try:
            importlib.import_module(f"examples.{name}").main()
        except Surprise as surprise:
            print(f"UNEXPECTED: {surprise}", file=sys.stderr)
            return 1
    print(f"\nAll {len(EXAMPLES)} went as they should, in {time.monotonic() - start:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
