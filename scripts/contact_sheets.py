"""Contact sheets of many portraits: python scripts/contact_sheets.py PORTRAIT... -o FOLDER."""

from __future__ import annotations

import argparse
from pathlib import Path

import vasa3d
from vasa3d.evaluation.sheet import contact_sheet, write_sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("portraits", nargs="+", type=Path, help="photos, or .vasa3d files")
    parser.add_argument("-o", "--out", type=Path, default=Path("out"))
    parser.add_argument("--side", type=int, default=256, help="side of each picture in pixels")
    parser.add_argument("--quality", default="standard", help="draft, standard or high")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.portraits:
        saved = path.suffix == ".vasa3d"
        avatar = vasa3d.Avatar.load(path) if saved else vasa3d.create(path, quality=options.quality)
        sheet = contact_sheet(avatar, options.side)
        write_sheet(options.out / f"{path.stem}.png", sheet, force=True)


if __name__ == "__main__":
    main()
