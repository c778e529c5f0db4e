"""``python -m vkubelet`` is ``vkubelet``."""

from __future__ import annotations

import sys

from vkubelet.cli import main

if __name__ == "__main__":
    sys.exit(main())
