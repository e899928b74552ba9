"""What happened, for who runs the server: one line of JSON each."""

from __future__ import annotations

import json
import logging
from typing import Any

LOG = logging.getLogger("vasa3d.server")


class EventFormatter(logging.Formatter):
    """A line of JSON for everything: our own lines are it already, those of other packages become it."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.name == LOG.name:
            return text
        event = {"event": record.levelname.lower(), "source": record.name, "reason": text}
        if record.exc_info:
            event["trace"] = self.formatException(record.exc_info)
        return json.dumps(event)


def log(event: str, **values: Any) -> None:
    """One line of JSON about something that happened."""
    LOG.info(json.dumps({"event": event, **values}, default=str))
