"""All benchmarks: ``python -m benchmarks.report``.

The files lie in memory (``/dev/shm``), so that a disk's own time does not hide ours, and then where
temporary files usually lie.
"""

from __future__ import annotations

import os
import platform
import tempfile

from benchmarks import (
    bench_calls,
    bench_linker,
    bench_lua,
    bench_start,
    bench_view,
    bench_wasi,
)


def main() -> None:
    """Run them one after the other."""
    print(
        f"{platform.machine()}, {os.cpu_count()} processors, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )
    for folder in ("/dev/shm", tempfile.gettempdir()):  # noqa: S108
        if os.access(folder, os.W_OK):
            print(f"\nWASI calls, files in {folder}")
            bench_wasi.main(folder)
    print("\nWASI calls in a Linker of one's own")
    bench_linker.main()
    print("\nCalls of WALI programs")
    bench_calls.main()
    print("\nViews, and the kernel's rules")
    bench_view.main()
    print("\nUpstream's lua")
    bench_lua.main()
    print("\nStart-up")
    bench_start.main()


if __name__ == "__main__":
    main()
