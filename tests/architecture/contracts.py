"""A contract for import-linter: its own cannot name modules by a prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from importlinter import Contract, ContractCheck, output

if TYPE_CHECKING:
    from grimp import ImportGraph


class PrivateModulesContract(Contract):
    """Modules whose name starts with one underscore are imported by their own package only."""

    type_name = "private"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 (its interface)
        """Collect the direct imports of private modules that cross from one package to another."""
        del verbose
        crossing = [
            (importer, imported)
            for imported in sorted(filter(is_private, graph.modules))
            for importer in sorted(graph.find_modules_that_directly_import(imported))
            if importer.partition(".")[0] != imported.partition(".")[0]
        ]
        return ContractCheck(kept=not crossing, metadata={"crossing": crossing})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each import that breaks it."""
        for importer, imported in check.metadata["crossing"]:
            output.print_error(f"{importer} imports {imported}, which is private")


def is_private(module: str) -> bool:
    """Return whether a part of the dotted name is private: `_x`, but not `__x__`."""
    return any(part.startswith("_") and not part.startswith("__") for part in module.split("."))
