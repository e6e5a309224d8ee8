"""Escapes: everything that a hostile shim, or a hostile guest of the real one, can try."""
