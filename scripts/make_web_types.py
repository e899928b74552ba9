"""Write ``web/src/generated.ts``; run it when the protocol, the channels or the emotions have changed."""

from __future__ import annotations

from pathlib import Path

from vasa3d.server.protocol import typescript

TARGET = Path(__file__).resolve().parents[1] / "web" / "src" / "generated.ts"

if __name__ == "__main__":
    TARGET.write_text(typescript(), encoding="utf-8")
