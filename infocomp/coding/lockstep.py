"""Many pieces of a token sequence read side by side, one token a step, in the same arithmetic forwards and backwards.

Logits of one parallel pass and of a pass token by token differ in their last bits, and one bit is enough to lose a
coded stream. So encoder and decoder both go token by token, with the same shapes: the sequence is cut into chunks of
equal length, a group of them (the lanes) advances by one token a step with a cache of keys and values, and the only
difference is who says what the next token is. Coding takes as many steps as a chunk has tokens, however many lanes.

Inside a chunk a window slides: when the context is full, it is read again from the beginning-of-sequence token and the
last `overlap` tokens (0: from nothing), in one parallel pass that both sides make alike.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from infocomp.coding.integer_weights import concatenated

Use = Callable[[Float[Tensor, "lanes vocabulary"], Int[np.ndarray, "lanes"]], None]
Choose = Callable[[Float[Tensor, "lanes vocabulary"]], Int[np.ndarray, "lanes"]]


@dataclass(frozen=True)
class Chunking:
    """How a token sequence is cut: at most `chunk_tokens` a chunk, `lanes` chunks at once, windows of `context_length`
    positions (a BOS counts) of which `overlap` tokens are read again when the window moves on.

    ValueError for numbers that no sequence can be cut by.
    """

    chunk_tokens: int
    context_length: int
    overlap: int
    lanes: int

    def __post_init__(self) -> None:
        if self.chunk_tokens < 1 or self.lanes < 1:
            raise ValueError(
                f"chunk_tokens and lanes must be at least 1, got {self.chunk_tokens} and {self.lanes}; take more."
            )
        if self.context_length < 2:
            raise ValueError(f"context_length must be at least 2 positions, got {self.context_length}; take more.")
        if not 0 <= self.overlap < self.context_length - 1:
            raise ValueError(
                f"overlap must lie between 0 and {self.context_length - 2} tokens for a context of "
                f"{self.context_length}, got {self.overlap}; take less."
            )

    def groups(self, tokens: int) -> list["Group"]:
        """Groups of chunks of (nearly) equal length, in the order of the sequence, as even as they can be."""
        chunks = -(-tokens // self.chunk_tokens)
        length = -(-tokens // chunks) if chunks else 0
        number = -(-chunks // self.lanes)
        groups, begin = [], 0
        for place in range(number):
            lanes = chunks // number + (place < chunks % number)
            end = min(tokens, begin + lanes * length)
            groups.append(Group(begin, end, min(length, end - begin), lanes))
            begin = end
        return groups


@dataclass(frozen=True)
class Group:
    """Tokens begin … end − 1 in `lanes` chunks of `length` tokens, the last of them perhaps shorter."""

    begin: int
    end: int
    length: int
    lanes: int

    def active(self, step: int) -> int:
        """How many lanes, from the first on, have a token at this step."""
        last = self.end - self.begin - (self.lanes - 1) * self.length
        return self.lanes - (step >= last)


class Lockstep:
    """A model that reads the chunks of a token sequence side by side.

    `vocabulary` is how many symbols are coded (logits of further columns are padding and are left out), `bos` the
    token before each window, or None: then the first token of a window is predicted by equal logits.
    """

    def __init__(self, model: PreTrainedModel, chunking: Chunking, vocabulary: int, bos: int | None) -> None:
        self.model, self.chunking, self.vocabulary, self.bos = model, chunking, vocabulary, bos
        self.device = next(model.parameters()).device

    def encode(
        self, tokens: Int[np.ndarray, "tokens"], use: Use, progress: Callable[[int], None] | None = None
    ) -> None:
        """Read a known sequence: `use(logits, targets)` is called at every step of every group, lanes in order."""
        tokens = np.asarray(tokens)
        for group in self.chunking.groups(len(tokens)):
            self.read_group(tokens[group.begin : group.end], group, use, progress)

    def read_group(
        self,
        tokens: Int[np.ndarray, "tokens"],
        group: Group,
        use: Use,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """`encode` for one group and its tokens."""
        lanes = _padded(tokens, group)
        walk = self._walk(group)
        logits = next(walk)
        for step in range(group.length):
            active = group.active(step)
            use(logits[:active], lanes[:active, step])
            if progress is not None:
                progress(active)
            logits = walk.send(lanes[:, step])

    def decode(
        self, tokens: int, choose: Choose, progress: Callable[[int], None] | None = None
    ) -> Int[np.ndarray, "tokens"]:
        """Find an unknown sequence of that many tokens: `choose(logits)` says the next token of each lane."""
        parts = []
        for group in self.chunking.groups(tokens):
            lanes = np.zeros((group.lanes, group.length), dtype=np.int64)
            walk = self._walk(group)
            logits = next(walk)
            for step in range(group.length):
                active = group.active(step)
                lanes[:active, step] = choose(logits[:active])
                if progress is not None:
                    progress(active)
                logits = walk.send(lanes[:, step])
            parts.append(lanes.ravel()[: group.end - group.begin])
        return concatenated(parts)

    @torch.inference_mode()
    def _walk(self, group: Group) -> Generator[Any, Any, None]:
        """Gives the logits of the next token of every lane, and is sent these tokens, step after step."""
        history = np.zeros((group.lanes, group.length), dtype=np.int64)
        window = _Window(self.model, self.chunking.context_length, group.lanes, self.vocabulary, self.device)
        for step in range(group.length):
            if step == 0 or window.full:
                again = 0 if step == 0 else self.chunking.overlap
                logits = self._begin(window, history[:, step - again : step])
            else:
                logits = window.read(history[:, step - 1 : step])
            history[:, step] = yield logits
        yield None

    def _begin(self, window: "_Window", context: Int[np.ndarray, "lanes again"]) -> Float[Tensor, "lanes vocabulary"]:
        """A fresh window that has read the BOS, if there is one, and the tokens of the context."""
        window.clear()
        if self.bos is not None:
            context = np.concatenate([np.full((len(context), 1), self.bos, dtype=np.int64), context], axis=1)
        if not context.shape[1]:
            return torch.zeros((len(context), self.vocabulary), device=self.device)
        return window.read(context)


def _padded(tokens: Int[np.ndarray, "tokens"], group: Group) -> Int[np.ndarray, "lanes length"]:
    lanes = np.zeros(group.lanes * group.length, dtype=np.int64)
    lanes[: len(tokens)] = tokens
    return lanes.reshape(group.lanes, group.length)


class _Window:
    """Keys and values of what the lanes have read since the window began."""

    def __init__(self, model: PreTrainedModel, positions: int, lanes: int, vocabulary: int, device: Any) -> None:
        self.model, self.positions, self.vocabulary, self.device = model, positions, vocabulary, device
        self.cache: Any = None
        self.used = 0

    @property
    def full(self) -> bool:
        """Whether the window ends here: one more token to read, and the one it predicts would have no position."""
        return self.used + 1 >= self.positions

    def clear(self) -> None:
        """Forget everything."""
        if self.cache is None or not all(isinstance(layer, _FixedLayer) for layer in self.cache.layers):
            self.cache = DynamicCache(config=self.model.config)
            self.cache.layers = [
                _FixedLayer(self.positions) if type(layer) is DynamicLayer else layer for layer in self.cache.layers
            ]
        else:
            for layer in self.cache.layers:
                layer.used = 0
        self.used = 0

    def read(self, tokens: Int[np.ndarray, "lanes new"]) -> Float[Tensor, "lanes vocabulary"]:
        """Read tokens of every lane; the logits after the last of them."""
        ids = torch.from_numpy(np.ascontiguousarray(tokens)).to(self.device)
        output: Any = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        if getattr(output, "past_key_values", None) is None:
            raise ValueError(
                f"{type(self.model).__name__} keeps no keys and values, and the codec reads token by token with them; "
                "measure the rate alone, or take a transformer."
            )
        self.cache = output.past_key_values
        self.used += ids.shape[1]
        return output.logits[:, -1, : self.vocabulary]


class _FixedLayer(DynamicLayer):
    """Keys and values in memory taken once, where a growing layer would copy all of it at every step."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.positions, self.used = positions, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys = key_states.new_empty((*key_states.shape[:2], self.positions, key_states.shape[-1]))
        self._values = value_states.new_empty((*value_states.shape[:2], self.positions, value_states.shape[-1]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.used + key_states.shape[-2]
        self._keys[:, :, self.used : end] = key_states
        self._values[:, :, self.used : end] = value_states
        self.used = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.used
