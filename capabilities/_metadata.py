"""Calls that change what the host says about a file, which only a view holds to the grants.

Without attrs: it is imported at every start of a guest.
"""

from __future__ import annotations

_NAMES = """
    chmod fchmod fchmodat fchmodat2 chown fchown fchownat lchown utime utimes futimesat utimensat
    setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
"""
METADATA_WRITERS = frozenset(_NAMES.split())
"""Landlock has no hook for them: without a view they are refused, whatever is granted."""
