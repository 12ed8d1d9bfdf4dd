"""Rank coding: each token as its place in the model's order of tokens, most probable first; sizes in bytes.

AlphaZip's scheme (Narashiman and Chandrachoodan 2024, arXiv 2409.15046) with what a rate needs: a decoder, every token
counted from the first on, one fixed order among equal logits (the lower id first), and sizes of real bytes. Ranks come
from the same steps as arithmetic coding (`infocomp.coding.lockstep`), so that both code the same tokens with the same
predictions. A rank keeps the order of the probabilities and throws away their size: that is what the scheme costs.

Ranks are coded in the order of the text. What a decoder must be told besides is not in these sizes, as it is not in the
payload of the arithmetic code: model, chunking and how many tokens there are.
"""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import brotli
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from infocomp.coding import adaptive_huffman
from infocomp.coding.lockstep import Chunking, Lockstep

NEAR = 32  # ranks up to here are found among the largest few logits, others one row at a time
_VARINT, _SIXTEEN_BITS = 0, 1  # first byte of the byte coders' output


def ranks(logits: Float[Tensor, "n vocabulary"], targets: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """How many tokens come before each target: larger logits, and equal ones of a lower id; 0 is the most probable.

    Raises ValueError for a NaN (it has no place), a target outside the vocabulary, another number of targets than rows.
    """
    logits, wanted = _checked(logits), torch.as_tensor(np.asarray(targets), dtype=torch.int64).to(logits.device)
    n, vocabulary = logits.shape
    if wanted.shape != (n,):
        raise ValueError(f"targets has shape {tuple(wanted.shape)}, logits has {n} rows: one target per row is needed.")
    _check_inside(wanted, vocabulary, "targets")
    chosen = logits.gather(1, wanted[:, None])
    ids = torch.arange(vocabulary, device=logits.device)
    before = (logits > chosen) | ((logits == chosen) & (ids < wanted[:, None]))
    return before.sum(dim=1).cpu().numpy()


def tokens_at(logits: Float[Tensor, "n vocabulary"], at: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The token at each rank, the inverse of `ranks` on the same logits, whatever order a sort leaves ties in.

    The r-th largest value does not depend on how ties fall; the token is the (r − number of larger logits)-th of those
    that equal it, by id. Raises ValueError as `ranks` does.
    """
    logits, places = _checked(logits), torch.as_tensor(np.asarray(at), dtype=torch.int64).to(logits.device)
    n, vocabulary = logits.shape
    if places.shape != (n,):
        raise ValueError(f"ranks has shape {tuple(places.shape)}, logits has {n} rows: one rank per row is needed.")
    _check_inside(places, vocabulary, "ranks")
    value = logits.new_empty((n, 1))
    near = places < NEAR
    if near.any():
        largest = logits[near].topk(min(NEAR, vocabulary), dim=1, sorted=True).values
        value[near] = largest.gather(1, places[near, None])
    for row in (~near).nonzero().flatten().tolist():
        value[row] = logits[row].kthvalue(vocabulary - int(places[row])).values
    equal = logits == value
    wanted = places[:, None] - (logits > value).sum(dim=1, keepdim=True) + 1
    return (equal & (equal.cumsum(dim=1) == wanted)).int().argmax(dim=1).cpu().numpy()


def _checked(logits: Tensor) -> Float[Tensor, "n vocabulary"]:
    logits = torch.as_tensor(logits)
    if logits.ndim != 2:
        raise ValueError(f"logits must be rows of a vocabulary, got shape {tuple(logits.shape)}; give [n, vocabulary].")
    wrong = int(torch.isnan(logits).any(dim=1).sum())
    if wrong:
        raise ValueError(
            f"{wrong} of {len(logits)} rows of logits hold NaN, which has no rank; use a wider dtype, or leave the "
            "checkpoint out."
        )
    return logits


def _check_inside(values: Int[Tensor, "n"], vocabulary: int, name: str) -> None:
    outside = values[(values < 0) | (values >= vocabulary)]
    if len(outside):
        raise ValueError(
            f"{name} must lie between 0 and {vocabulary - 1}, got {int(outside[0])}; check the vocabulary's size."
        )


class RankStream:
    """Collects ranks: `Lockstep.encode(tokens, stream.use)`, then `stream.ranks(chunking)`."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []

    def use(self, logits: Float[Tensor, "lanes vocabulary"], targets: Int[np.ndarray, "lanes"]) -> None:
        """One step of the lanes."""
        self._parts.append(ranks(logits, targets))

    def ranks(self, chunking: Chunking) -> Int[np.ndarray, "tokens"]:
        """All ranks in the order of the text."""
        seen = np.concatenate([np.zeros(0, np.int64), *self._parts])
        in_order = np.empty_like(seen)
        in_order[step_order(chunking, len(seen))] = seen
        return in_order


def step_order(chunking: Chunking, tokens: int) -> Int[np.ndarray, "tokens"]:
    """Place in the text of each token in the order in which lockstep comes to it: step by step, lane by lane."""
    parts = [np.zeros(0, np.int64)]
    for group in chunking.groups(tokens):
        places = group.begin + np.arange(group.lanes * group.length).reshape(group.lanes, group.length).T
        parts.append(places[places < group.end])
    return np.concatenate(parts)


def rank_decode(lockstep: Lockstep, in_order: Int[np.ndarray, "tokens"]) -> Int[np.ndarray, "tokens"]:
    """The tokens whose ranks, in the order of the text, these are."""
    in_order = np.asarray(in_order)
    waiting = in_order[step_order(lockstep.chunking, len(in_order))]
    used = 0

    def choose(logits: Float[Tensor, "lanes vocabulary"]) -> Int[np.ndarray, "lanes"]:
        nonlocal used
        used += len(logits)
        return tokens_at(logits, waiting[used - len(logits) : used])

    return lockstep.decode(len(in_order), choose)


class RankCoder(Protocol):
    """Ranks to bytes and back; how many there are is told to the decoder."""

    def encode(self, ranks: Int[np.ndarray, "n"]) -> bytes: ...

    def decode(self, code: bytes, n: int) -> Int[np.ndarray, "n"]: ...


@dataclass(frozen=True)
class ByteCoder:
    """Ranks as bytes, then a general coder. The first byte of the code says which bytes they were: base-128 with a
    continuation bit (LEB128), or 16 bits each, low byte first; whichever comes out shorter in the end.
    """

    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]

    def encode(self, ranks: Int[np.ndarray, "n"]) -> bytes:
        """Code ranks of 0 and more. ValueError for a negative one."""
        ranks = np.asarray(ranks, dtype=np.int64)
        if len(ranks) and ranks.min() < 0:
            raise ValueError(f"ranks must be 0 or more, got {ranks.min()}; 0 is the most probable token.")
        codes = [bytes([_VARINT]) + self.compress(varint_bytes(ranks))]
        if not len(ranks) or ranks.max() < 1 << 16:
            codes.append(bytes([_SIXTEEN_BITS]) + self.compress(ranks.astype("<u2").tobytes()))
        return min(codes, key=len)

    def decode(self, code: bytes, n: int) -> Int[np.ndarray, "n"]:
        """The ranks, int64. ValueError where the code is not one of `n` ranks."""
        if not code or code[0] not in (_VARINT, _SIXTEEN_BITS):
            raise ValueError(
                f"no rank code: the first byte is {code[0] if code else 'missing'}, 0 or 1 is needed; "
                "check where the code begins."
            )
        data = self.decompress(code[1:])
        if code[0] == _SIXTEEN_BITS:
            found = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2").astype(np.int64)
            whole = len(data) % 2 == 0
        else:
            found, whole = from_varint_bytes(data), not data or data[-1] < 128
        if len(found) != n or not whole:
            raise ValueError(
                f"the code holds {len(found)} ranks, {n} were expected; it is damaged, or of another text."
            )
        return found


def varint_bytes(numbers: Int[np.ndarray, "n"]) -> bytes:
    """Numbers of 0 and more in base 128, low digits first, the high bit set on all bytes but a number's last."""
    numbers = np.asarray(numbers, dtype=np.int64)
    longest = max(1, -(-int(numbers.max(initial=0)).bit_length() // 7))
    digits = numbers[:, None] >> (7 * np.arange(longest))
    is_used = digits > 0
    is_used[:, 0] = True
    goes_on = np.pad(is_used[:, 1:], ((0, 0), (0, 1)))
    return (digits & 127 | goes_on * 128)[is_used].astype(np.uint8).tobytes()


def from_varint_bytes(data: bytes) -> Int[np.ndarray, "n"]:
    """The numbers that end within `data`, int64. ValueError for one of more than 63 bits."""
    raw = np.frombuffer(data, dtype=np.uint8).astype(np.int64)
    ends = np.flatnonzero(raw < 128) + 1
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.r_[0, ends[:-1]]
    digit = np.arange(ends[-1]) - np.repeat(starts, ends - starts)
    if digit.max() > 8:
        raise ValueError(f"a number of {digit.max() + 1} bytes is no rank; the code is damaged.")
    return np.add.reduceat((raw[: ends[-1]] & 127) << (7 * digit), starts)


@dataclass(frozen=True)
class _AdaptiveHuffman:
    """Ranks as symbols of an adaptive Huffman code: no bytes in between."""

    def encode(self, ranks: Int[np.ndarray, "n"]) -> bytes:
        return adaptive_huffman.encode(ranks)

    def decode(self, code: bytes, n: int) -> Int[np.ndarray, "n"]:
        return adaptive_huffman.decode(code, n)


RANK_CODERS: dict[str, RankCoder] = {
    "rank + gzip -9": ByteCoder(lambda data: gzip.compress(data, compresslevel=9, mtime=0), gzip.decompress),
    "rank + brotli -11": ByteCoder(lambda data: brotli.compress(data, quality=11, lgwin=24), brotli.decompress),
    "rank + adaptive Huffman": _AdaptiveHuffman(),
}


def rank_sizes(
    model: PreTrainedModel,
    tokens: Int[np.ndarray, "tokens"],
    chunking: Chunking,
    vocabulary: int,
    bos: int | None,
    coders: Mapping[str, RankCoder] | None = None,
) -> dict[str, int]:
    """Bytes of the tokens under each rank coder, every code decoded to its ranks and the ranks to the tokens.

    The model runs twice, once there and once back. Raises RuntimeError where something does not come back.
    """
    tokens = np.asarray(tokens)
    lockstep, stream = Lockstep(model, chunking, vocabulary, bos), RankStream()
    lockstep.encode(tokens, stream.use)
    in_order = stream.ranks(chunking)
    wrong = int((np.asarray(rank_decode(lockstep, in_order)) != tokens).sum())
    if wrong:
        raise RuntimeError(
            f"{wrong} of {len(tokens)} tokens did not come back from their ranks: the model computes differently the "
            "second time; pin threads and device, and leave the rate out."
        )
    sizes = {}
    for name, coder in (RANK_CODERS if coders is None else coders).items():
        code = coder.encode(in_order)
        if not np.array_equal(coder.decode(code, len(in_order)), in_order):
            raise RuntimeError(f"'{name}' did not give back the {len(in_order)} ranks that it coded; leave it out.")
        sizes[name] = len(code)
    return sizes
