"""``python -m vasa3d`` is the command line."""

import sys

from vasa3d.cli import main

sys.exit(main())
