"""Counters of the server in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_DELAY_BOUNDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)


@dataclass
class Metrics:
    """What happened since the start; only the event loop writes.

    Attributes:
        sessions: Open now.
        closed: Sessions that ended, by close code.
        turns: Turns begun.
        interrupted: Turns ended by the client before their end.
        frames: Frames of motion sent.
        dropped: Frames dropped for slow clients.
        sound_seconds: Sound heard.
        worker_losses: Worker processes that died.
        pictures: Pictures drawn for thin clients.
        pictures_late: Pictures left out because the one before was not yet drawn.
        load: Share of its time that the turns of the busiest worker take, if somebody speaks in all of them.
        delays: Seconds from a block of sound to the motion that it settled.
    """

    sessions: int = 0
    closed: Counter[int] = field(default_factory=Counter)
    turns: int = 0
    interrupted: int = 0
    frames: int = 0
    dropped: int = 0
    sound_seconds: float = 0.0
    worker_losses: int = 0
    pictures: int = 0
    pictures_late: int = 0
    load: float = 0.0
    _delay_counts: list[int] = field(default_factory=lambda: [0] * (len(_DELAY_BOUNDS) + 1))
    _delay_sum: float = 0.0

    def observe_delay(self, seconds: float) -> None:
        """Count one block's time from arrival to motion."""
        place = sum(seconds > bound for bound in _DELAY_BOUNDS)
        self._delay_counts[place] += 1
        self._delay_sum += seconds

    def text(self) -> str:
        """All values, as ``/metrics`` shows them."""
        lines: list[str] = []

        def add(name: str, kind: str, text: str, values: Mapping[str, float]) -> None:
            lines.append(f"# HELP vasa3d_{name} {text}")
            lines.append(f"# TYPE vasa3d_{name} {kind}")
            lines.extend(f"vasa3d_{name}{label} {value:g}" for label, value in values.items())

        add("sessions", "gauge", "Open sessions.", {"": self.sessions})
        add("load", "gauge", "Share of the busiest worker's time.", {"": round(self.load, 4)})
        by_code = {f'{{code="{code}"}}': n for code, n in sorted(self.closed.items())}
        add("sessions_closed_total", "counter", "Ended sessions by close code.", by_code)
        add("turns_total", "counter", "Turns begun.", {"": self.turns})
        add("turns_interrupted_total", "counter", "Turns interrupted.", {"": self.interrupted})
        add("frames_total", "counter", "Frames of motion sent.", {"": self.frames})
        add("frames_dropped_total", "counter", "Frames dropped.", {"": self.dropped})
        add("sound_seconds_total", "counter", "Sound heard.", {"": round(self.sound_seconds, 3)})
        add("worker_losses_total", "counter", "Worker processes lost.", {"": self.worker_losses})
        add("pictures_total", "counter", "Pictures drawn.", {"": self.pictures})
        add("pictures_late_total", "counter", "Pictures left out.", {"": self.pictures_late})
        total, buckets = 0, {}
        for bound, count in zip((*_DELAY_BOUNDS, "+Inf"), self._delay_counts, strict=True):
            total += count
            buckets[f'_bucket{{le="{bound}"}}'] = total
        buckets |= {"_sum": round(self._delay_sum, 6), "_count": total}
        add("motion_delay_seconds", "histogram", "From a block of sound to its motion.", buckets)
        return "\n".join(lines) + "\n"
