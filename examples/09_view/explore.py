"""Run a program that looks for everything there is, and finds what its policy grants.

python -m examples.09_view.explore
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from capabilities.lockdown import view
from examples._common import expect, run, say, wali, wali_program

HERE = Path(__file__).parent
EXISTS = [
    *("/dev", "/dev/null", "/etc", "/etc/prices"),
    *("/recipes", "/recipes/secret", "/recipes/soup", "/table"),
]


def lay_out(folder: Path) -> None:
    """Make what is granted, and something beside it."""
    recipes = folder / "kitchen" / "recipes"
    recipes.mkdir(parents=True)
    (folder / "table").mkdir()
    (recipes / "soup").write_text("water\n")
    (recipes / "secret").symlink_to(folder / "kitchen" / "safe")
    (folder / "kitchen" / "safe").write_text("nobody granted this\n")
    (folder / "kitchen" / "prices.txt").write_text("soup 3\n")
    shutil.copy(HERE / "policy.toml", folder)


def explore(folder: Path) -> None:
    """Run it, and see that it found what it should."""
    program = wali_program(HERE / "explore.c")
    soup = folder / "kitchen" / "recipes" / "soup"
    before = soup.stat()
    done = wali("run", "--policy", "policy.toml", program, str(soup), cwd=folder)
    if why := view.probe():
        say(f"this machine makes no namespace ({why}): refused, as the policy requires one")
        expect(done.returncode == 126, f"status {done.returncode}")
        return
    expect(done.returncode == 0, f"status {done.returncode}")
    lines = [line.rpartition(": ") for line in done.stdout.splitlines()]
    found = sorted(path for what, _, path in lines if what == "exists")
    expect(found == EXISTS, f"it found {found}")
    results = {what: value for what, _, value in lines}
    refused = {
        f"stat {soup}": errno.ENOENT,
        "stat /etc/passwd": errno.ENOENT,
        "write /recipes/soup": errno.EROFS,
        "chmod /recipes/soup": errno.EROFS,
    }
    for what, number in refused.items():
        expect(results[what] == str(-number), f"{what}: {results[what]}")
    menu = folder / "table" / "menu"
    expect(results["here"] == "/table", f"it was in {results['here']}")
    expect(menu.read_text() == "soup\n", "what it wrote is not there")
    expect(menu.stat().st_mode & 0o777 == 0o640, "it could not change what it was granted")
    expect(soup.stat().st_mode == before.st_mode, "the recipe was changed")
    say(f"{len(found)} names exist for it: what the policy grants, and nothing else")
    say(f"what it wrote is in table/{menu.name}, with the mode that it gave it")


def main() -> None:
    """Do it in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="wali-example-") as name:
        folder = Path(os.path.realpath(name))
        lay_out(folder)
        explore(folder)


if __name__ == "__main__":
    run(main)
