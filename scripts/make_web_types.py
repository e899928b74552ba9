"""Write what ``web/src`` takes from Python: run it when the protocol, the channels, the emotions or the tables of the
mouth have changed.
"""

from __future__ import annotations

from pathlib import Path

from vasa3d.server.protocol import typescript
from vasa3d.server.tables import speech_tables

SOURCE = Path(__file__).resolve().parents[1] / "web" / "src"

if __name__ == "__main__":
    (SOURCE / "generated.ts").write_text(typescript(), encoding="utf-8")
    (SOURCE / "speech" / "tables.ts").write_text(speech_tables(), encoding="utf-8")
