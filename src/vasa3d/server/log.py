"""What happened, for who runs the server: one line of JSON each."""

from __future__ import annotations

import json
import logging
from typing import Any

LOG = logging.getLogger("vasa3d.server")


def log(event: str, **values: Any) -> None:
    """One line of JSON about something that happened."""
    LOG.info(json.dumps({"event": event, **values}, default=str))
