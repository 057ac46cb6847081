"""Small pictures inside a page: images of a set as data URIs, and the examples made of them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from longtailed.analysis.diagnosis.findings import Findings
from longtailed.analysis.diagnosis.passes import image_name
from longtailed.data import ImageSet
from longtailed.errors import LongTailedError

SIDE = 72  # pixels of a picture in the page; smaller images stay as they are
MOST_CLASSES, MOST_EXAMPLES, MOST_LISTED = 8, 3, 40


@dataclass(frozen=True)
class Picture:
    """An image of a set: a data URI (empty if it cannot be read), what it is called, a remark."""

    uri: str
    name: str
    alike: bool = False


@dataclass(frozen=True)
class Example:
    """A wrong test image and the training images of the predicted class that are nearest to it."""

    image: Picture
    predicted: str
    neighbours: tuple[Picture, ...]
    alike: int


@dataclass(frozen=True)
class ClassExamples:
    """Examples of one class, under what its error goes with."""

    name: str
    count: str
    accuracy: str
    verdict: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Listed:
    """A look-alike with the image of the other class that is nearest to it."""

    image: Picture
    nearest: Picture
    label: str
    looks_like: str
    cosine: str
    duplicate: bool


def picture(imageset: ImageSet, position: int, alike: bool = False) -> Picture:
    """Return an image as a data URI of at most 72 pixels a side."""
    name = image_name(imageset, position)
    try:
        pixels = imageset.decode(position).permute(1, 2, 0).contiguous().numpy()
    except LongTailedError:
        return Picture("", name, alike)
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    kind = "PNG" if max(image.size) <= SIDE else "JPEG"
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, format=kind, **({"quality": 80} if kind == "JPEG" else {}))
    text = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/{kind.lower()};base64,{text}", name, alike)


def class_examples(findings: Findings) -> list[ClassExamples]:
    """Return examples of the classes with most error; those among look-alikes first."""
    found = []
    for label in findings.by_error()[:MOST_CLASSES]:
        examples = _examples(findings, label)
        if examples:
            found.append(
                ClassExamples(
                    name=findings.names[label],
                    count=f"{findings.counts[label]:,}",
                    accuracy=f"{100 * (1 - findings.parts.error[label]):.0f} %",
                    verdict=findings.verdict(label),
                    examples=tuple(examples),
                )
            )
    return found


def _examples(findings: Findings, label: int) -> list[Example]:
    evidence, near = findings.evidence, findings.neighbours
    truth = evidence.test.labels[near.images.numpy()]
    rows = [int(row) for row in (truth == label).nonzero()[0]]
    rows.sort(key=lambda row: -float(near.excess[row]))
    examples = []
    for row in rows[:MOST_EXAMPLES]:
        position = int(near.images[row])
        members = [
            picture(evidence.train, place, bool(alike))
            for place, alike in zip(near.nearest[row].tolist(), near.alike[row], strict=True)
            if place >= 0
        ]
        predicted = findings.names[int(evidence.predictions[position])]
        alike = sum(one.alike for one in members)
        shown = picture(evidence.test, position)
        examples.append(Example(shown, predicted, tuple(members), alike))
    return examples


def listed_look_alikes(findings: Findings) -> list[Listed]:
    """Return the look-alikes that the page lists."""
    train, names = findings.evidence.train, findings.names
    return [
        Listed(
            image=picture(train, one.position),
            nearest=picture(train, one.nearest),
            label=names[one.label],
            looks_like=names[one.looks_like],
            cosine=f"{one.cosine:.2f}",
            duplicate=one.duplicate,
        )
        for one in findings.look_alikes[:MOST_LISTED]
    ]
