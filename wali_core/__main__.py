"""``python -m wali_core`` is the command ``wali``."""

from __future__ import annotations

import sys

from wali_core.cli import main

sys.exit(main())
