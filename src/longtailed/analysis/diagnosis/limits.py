"""What the numbers of a diagnosis can and cannot show, in plain words."""

from __future__ import annotations

from longtailed.analysis.diagnosis.attribution import LEVEL, NEIGHBOURS
from longtailed.analysis.diagnosis.findings import FEW_ERRORS, Findings


def _sought_in(findings: Findings) -> str:
    neutral = findings.evidence.about["look_alikes_from"]
    if findings.evidence.estimated:
        return f"the features of {neutral}; those that these do not show are missed"
    return (
        f"the learnt features and in {neutral}. The features were learnt from the same labels, so "
        "what the network has learnt by heart looks like its label; look-alikes that neither "
        "description shows are missed"
    )


def limits(findings: Findings) -> list[str]:
    """Return, in plain words, what the numbers can and cannot show."""
    evidence, parts = findings.evidence, findings.parts
    tested = parts.images[parts.images > 0]
    learnt, met = findings.memorised
    texts = [
        "The parts are associations in one trained network. They say where errors lie, not what "
        "would happen if images were added or removed; only training again can show that.",
        "Scarcity here is that of the decision: what equal weights for all classes recover on the "
        "same features, minus what they lose. A frequent class has it, too, if training "
        "favours the others. What few images did to the features themselves is in the rest. Equal "
        "weights also recover errors that go with look-alikes nobody noticed.",
        f"Similarity counts wrong images whose {NEIGHBOURS} nearest training images of the class "
        "they were taken for look like their own class, beyond chance. Look-alikes are sought in "
        f"{_sought_in(findings)}, and similarity is then too small.",
        f"Intervals ({100 * LEVEL:.0f} %) come from resampling the test images, {tested.min():,} "
        f"to {tested.max():,} a class; they say nothing about other training runs, which vary "
        f"more. A class with fewer than {FEW_ERRORS} errors is not divided.",
    ]
    if evidence.estimated:
        texts[0] = (
            "No classifier was trained: errors are estimates from the nearest other images, each "
            "image left out in turn. A trained classifier errs elsewhere, and usually less. "
            "The parts are associations; only training can show what causes an error."
        )
    if not evidence.estimated and learnt > met + 0.1:
        texts.append(
            f"In the learnt features {100 * learnt:.0f} % of the training images are nearest to "
            f"their own class, but only {100 * met:.0f} % of the test images: the network has "
            "learnt its training labels by heart, and the learnt features hide look-alikes."
        )
    return [*texts, *warnings(findings)]


def warnings(findings: Findings) -> list[str]:
    """Return what makes the figures doubtful as a whole, and what would help."""
    if not findings.look_alikes_unsure:
        return []
    better = (
        "--network or --network-weights"
        if findings.evidence.estimated
        else "--look-alikes-from and a run of rotation or MoCo"
    )
    return [
        f"In {findings.evidence.about['look_alikes_from']}, only "
        f"{100 * findings.neutral_right:.0f} % of the training images look like their own class. "
        "They hardly tell these classes apart, so similarity says little about single images "
        f"here. Choose better features with {better}."
    ]
