"""Run what a language model has written: with the files of its task, limits, and a log.

python -m examples.10_agent_sandbox.sandbox
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from capabilities import Policy, read_events
from examples._common import expect, guest, run, say, text
from wali_core import GuestLimit, GuestTimeout, Runtime

HERE = Path(__file__).parent
GENERATED = HERE / "generated"


def policy_for(task: Path) -> Policy:
    """What a tool may do for a task: read its data, write its results, for a moment."""
    return Policy.from_dict(
        {
            "version": 1,
            "name": "a tool of the agent's",
            "filesystem": {"read_only": ["data::/data"], "read_write": ["out::/out"]},
            "limits": {
                "wall_time": "20s",
                "cpu_time": "500ms",
                "memory": "32M",
                "output": "64K",
                "open_files": 16,
            },
            "audit": {"log": "denied", "path": "audit.jsonl"},
        },
        task,
    )


def use(runtime: Runtime, tool: str) -> str:
    """Run a tool, and return what the agent is told of it."""
    program = guest(GENERATED / f"{tool}.c")
    try:
        done = runtime.run_sync(program, argv0=tool, capture_output=True)
    except GuestTimeout as error:
        return f"it took too long: {error}"
    except GuestLimit as error:
        return f"{error.limit}: {error}"
    return f"status {done.returncode}\n{text(done.stdout)}{text(done.stderr)}".rstrip()


def main() -> None:
    """Let five tools loose on a task."""
    os.environ["OPERATOR"] = "runs the agent"
    with tempfile.TemporaryDirectory() as name:
        task = Path(name)
        for folder in ("data", "out", ".ssh"):
            (task / folder).mkdir()
        (task / ".ssh" / "id_rsa").write_text("not for tools")
        (task / "data" / "sales.csv").write_text("north,120\nsouth,30\nwest,7\n")
        (task / "data" / "link").symlink_to("../.ssh/id_rsa")

        told = {}
        with Runtime(policy=policy_for(task)) as runtime:
            for tool in ("report", "snoop", "spin", "flood", "hoard"):
                told[tool] = use(runtime, tool)
                say(f"{tool}: {told[tool]}")
        report = (task / "out" / "report.txt").read_text()
        with (task / "audit.jsonl").open() as lines:
            refused = [event for event in read_events(lines) if event.decision == "denied"]
        say(f"the report: {report.rstrip()}")
        for event in refused:
            say(f"written down: {event.access} {event.resource}: refused by {event.rule}")
        sales = (task / "data" / "sales.csv").read_text()

    expect(report == "3 rows, 157 in all\n", "the useful tool is of no use")
    expect("DONE" not in told["snoop"], "it has got where nobody let it")
    expect("OPERATOR is not here" in told["snoop"], "it has seen the environment")
    expect(sales.startswith("north,120"), "it has changed its input")
    expect(told["spin"].startswith("cpu_time:"), "it has computed too long")
    expect(told["flood"].startswith("output:"), "it has written too much")
    expect(told["hoard"].startswith("open_files:"), "it has opened too much")
    expect(len(refused) == 3, "what was refused is not written down")


if __name__ == "__main__":
    run(main)
