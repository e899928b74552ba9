"""The demo: a portrait from scikit-image speaks a sentence; leaves out/demo.mp4 and out/demo.png."""

from __future__ import annotations

import tempfile
from pathlib import Path

import skimage.data
from PIL import Image
from rich.console import Console
from rich.progress import track

import vasa3d
from vasa3d.evaluation.sheet import contact_sheet, write_sheet
from vasa3d.pipeline import create_events
from vasa3d.weights import assets_dir

OUT = Path(__file__).resolve().parent.parent / "out"
SPEECH = assets_dir() / "demo.flac"


def main() -> None:
    console = Console(stderr=True)
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        portrait = Path(folder) / "portrait.png"
        Image.fromarray(skimage.data.astronaut()).save(portrait)
        events = create_events(portrait)
        with console.status("making the avatar") as status:
            for event in events:
                status.update(f"making the avatar: {event.stage} {event.done} of {event.total}")
        avatar = event.data["result"].avatar
    motion = vasa3d.speak(SPEECH)
    frames = vasa3d.render(
        avatar,
        motion,
        camera="swing",
        background=vasa3d.resolve_background(avatar, "original", 512),
    )
    counted = track(frames, "drawing", total=len(motion), console=console)
    vasa3d.write_video(OUT / "demo.mp4", counted, audio=SPEECH, fps=motion.fps, force=True)
    write_sheet(OUT / "demo.png", contact_sheet(avatar), force=True)
    console.print(f"wrote {OUT / 'demo.mp4'} and {OUT / 'demo.png'}")


if __name__ == "__main__":
    main()
