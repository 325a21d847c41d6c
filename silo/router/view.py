"""The statistics of a set of visible tools: how rare each term is among them. Computed once for each set.

A tool that a caller may not see must not affect a score. So rarity counts the visible tools only, and everything else
about a tool (`compiled`) depends on that tool alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from silo.router.compiled import Compiled
from silo.router.documents import DESCRIPTION, GROUP, NAME

SUMMED = (NAME, GROUP, DESCRIPTION)
"""The fields for which `View.sums` has sums."""


@dataclass(frozen=True)
class View:
    """The visible documents.

    Attributes:
        mask: whether each document is visible; None if all are.
        rarity: rarity of each term of the vocabulary among them: log(1 + (N - n + ½) / (n + ½)).
        rarest: the rarity of a term that a single visible document has.
        present: whether a visible document has the term.
        sums: sum of the rarities of all terms in a field of a document, for each of `SUMMED`; [n, 3].
    """

    mask: npt.NDArray[np.bool_] | None
    rarity: npt.NDArray[np.float32]
    rarest: float
    present: npt.NDArray[np.bool_]
    sums: npt.NDArray[np.float32]


def compute_view(compiled: Compiled, owners: npt.NDArray[np.int32], mask: npt.NDArray[np.bool_] | None) -> View:
    """Compute the view of the documents in `mask`.

    Args:
        compiled: all documents.
        owners: the document of each entry.
        mask: which are visible; None for all.
    """
    visible = compiled.terms if mask is None else compiled.terms[mask[owners]]
    count = len(compiled) if mask is None else int(mask.sum())
    frequency = np.bincount(visible, minlength=len(compiled.vocabulary))
    rarity = np.log(1 + (count - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
    sums = np.zeros((len(compiled), len(SUMMED)), np.float32)
    for column, field in enumerate(SUMMED):
        inside = np.flatnonzero(compiled.fields & (1 << field))
        worth = rarity[compiled.terms[inside]]
        # In the order of a document's entries, which other documents do not change, so the sum is exactly reproducible.
        sums[:, column] = np.bincount(owners[inside], worth, minlength=len(compiled))
    return View(mask, rarity, math.log(1 + max(count - 0.5, 0.5) / 1.5), frequency > 0, sums)
