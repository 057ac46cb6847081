"""Train on a folder of your own images in which some classes are rare.

    python examples/own_folder.py

Draws a small folder of circles, squares and triangles (60, 20 and 6 images; the same number of
each for testing), trains LDAM-DRW on it, and predicts one image. About 10 seconds on two CPU
cores. For your own images, leave out `draw_folder` and give the path of your folder: one sub-folder
per class, directly or below train/ and test/. On the command line:

    longtailed train --data FOLDER --method ldam-drw --network resnet8 image_size=28 lr=0.03
    longtailed predict RUN IMAGE
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from longtailed import predict, train

TRAIN = {"circle": 60, "square": 20, "triangle": 6}
TEST = {"circle": 20, "square": 20, "triangle": 20}
SIDE = 32
SETTINGS = {
    "image_size": 28,
    "batch_size": 16,
    "lr": 0.03,
    "holdout": 2,  # images per class that choose an epoch
    # The usual random crops would cut the corners off: a little room to move is enough here.
    "views.standard": "pad_crop(2), flip, center_crop(28)",
    "network.options.width": 0.5,
}


def draw(shape: str, generator: random.Random) -> Image.Image:
    """Return an image of the shape, of any colour, size and place."""
    background, colour = (
        tuple(generator.randrange(low, low + 100) for _ in range(3)) for low in (0, 156)
    )
    image = Image.new("RGB", (SIDE, SIDE), background)
    x, y = (generator.randrange(14, 19) for _ in range(2))
    radius = generator.randrange(9, 14)
    sides = {"circle": 60, "square": 4, "triangle": 3}[shape]
    turn = generator.randrange(-15, 16)
    ImageDraw.Draw(image).regular_polygon((x, y, radius), sides, turn, fill=colour)
    return image


def draw_folder(folder: Path) -> None:
    """Write folder/train/SHAPE/000.png ... and folder/test/SHAPE/000.png ..."""
    generator = random.Random(0)
    for split, counts in (("train", TRAIN), ("test", TEST)):
        for shape, count in counts.items():
            home = folder / split / shape
            home.mkdir(parents=True)
            for number in range(count):
                draw(shape, generator).save(home / f"{number:03d}.png")


def main(epochs: int = 60) -> None:
    """Draw, train, predict."""
    home = Path(tempfile.mkdtemp(prefix="longtailed-"))
    folder = home / "shapes"
    draw_folder(folder)
    run = train(
        data=str(folder),
        method="ldam-drw",
        network="resnet8",
        out=home / "run",
        overrides={**SETTINGS, "epochs": epochs},
    )
    groups = run.results["evaluations"]["last"]["groups"]
    for group in ("many", "medium", "few"):
        print(f"{group:6} {groups[group]:6.1%}")

    image = folder / "test" / "triangle" / "000.png"
    for prediction in predict(run.directory, [image]):
        print(image.name, *(f"{name} {share:.0%}" for name, share in prediction.classes))
    print("report:", run.report)


if __name__ == "__main__":
    main()
