"""What a model emits greedily after a prompt, many rows at once, with the text that really follows as a draft.

Greedy decoding reads one token a step, and a row that emits its own text could have been read in one pass. So the text
is read as a draft: after the prompt, the rows that agree with it so far read 3, 9, 27, … further tokens in one pass
each (verification as in speculative decoding, Leviathan et al. 2023, arXiv 2211.17192, with the text in place of a
draft model). That finds where each row first differs, and no row reads more than about three times what it agrees on.
Only then are the rows that differ read token by token, each from its own place on: rows are kept in the order of that
place, so that those which are under way are always the first rows of the cache, and no key or value is copied.

Tokens are those of `generate(do_sample=False)`, where the logits of two tokens do not come within rounding of each
other: the head is computed in the model's own dtype, and of equal logits the lower id wins.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from infocomp.coding.rate import plain_head

COLUMNS = 4096  # of the vocabulary at once: logits of all rows and columns are never held
GROWTH = 2  # the next pass reads this many times the tokens that agreed so far, and one


class GreedyReader:
    """Greedy decoding of one model, over windows of at most `positions` positions, never emitting the tokens `never`.

    ValueError for a model in training mode, without keys and values, or with layers that keep something else, and for
    a token in `never` that it has not.
    """

    def __init__(self, model: PreTrainedModel, positions: int, never: Sequence[int] = ()) -> None:
        if model.training:
            raise ValueError(
                "the model is in training mode, and dropout would change what it emits; call model.eval()."
            )
        check_never(model, never)
        self.model, self.positions, self.never = model, positions, tuple(never)
        self.device = next(model.parameters()).device
        with torch.inference_mode():
            self.head = plain_head(model)
        self.cache: Any = DynamicCache(config=model.config)
        kinds = {type(layer) for layer in self.cache.layers}
        if not kinds or kinds - {DynamicLayer, DynamicSlidingWindowLayer}:
            raise ValueError(
                f"{type(model).__name__} has layers that keep more than keys and values, which cannot be taken back to "
                "where a row first differs; take a transformer."
            )
        self.cache.layers = [_SharedLayer(positions) for _ in self.cache.layers]

    @torch.inference_mode()
    def follow(
        self, prompts: Int[np.ndarray, "n prompt"], drafts: Int[np.ndarray, "n continuation"], to_the_end: bool = True
    ) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n continuation"]]:
        """Where each row's greedy continuation first differs from its draft (`continuation` where nowhere), and the
        continuation itself; without `to_the_end` a row stops there, and the tokens that follow are −1.

        Raises ValueError where logits are NaN or nothing but −∞.
        """
        ids, text = (torch.from_numpy(np.array(part, np.int64)).to(self.device) for part in (prompts, drafts))
        n, continuation = text.shape
        order, emitted = torch.arange(n, device=self.device), torch.full_like(text, -1)
        first = torch.zeros_like(order)
        feed, at, agreed, width, begin = ids, 0, 0, 1, 0
        while True:
            # rows before `begin` differ somewhere; all others agree with the text on `agreed` tokens
            said = self._read(feed, slice(begin, n), at, width)
            emitted[begin:, agreed : agreed + width] = said
            same = (said == text[begin:, agreed : agreed + width]).long().cumprod(1).sum(1)
            first[begin:] = agreed + same
            agreed += width
            by_place = torch.argsort(same, stable=True)
            self._reorder(by_place, begin, at + feed.shape[1])
            for part in (order, emitted, text, first):
                part[begin:] = part[begin:][by_place]
            begin += int((same < width).sum())
            if begin == n or agreed == continuation:
                break
            width = min(GROWTH * agreed + 1, continuation - agreed)
            feed, at = text[begin:, agreed - 1 : agreed + width - 1], ids.shape[1] + agreed - 1
        if to_the_end:
            self._go_on(emitted, first, ids.shape[1])
        else:
            emitted[torch.arange(continuation, device=self.device) > first[:, None]] = -1
        back = torch.argsort(order)
        return first[back].cpu().numpy(), emitted[back].cpu().numpy()

    def _go_on(self, emitted: Int[Tensor, "n continuation"], first: Int[Tensor, "n"], prompt: int) -> None:
        """Read on, token by token, the rows that differ, which lie in the order of their first difference."""
        places = first.cpu().numpy()
        for step in range(int(places.min()), emitted.shape[1] - 1):
            rows = slice(0, int(np.searchsorted(places, step, side="right")))
            emitted[rows, step + 1 : step + 2] = self._read(emitted[rows, step : step + 1], rows, prompt + step, 1)

    def _read(self, ids: Int[Tensor, "rows new"], rows: slice, at: int, width: int) -> Int[Tensor, "rows width"]:
        """Read tokens from position `at` on into these rows of the cache; the token emitted after each of the last
        `width` of them."""
        for layer in self.cache.layers:
            layer.rows, layer.used = rows, at
        some = {"input_ids": ids, "past_key_values": self.cache, "use_cache": True}
        if self.head is None:
            logits = self.model(**some, logits_to_keep=width).logits[:, -width:]
            tokens, finite = _likeliest(logits.reshape(-1, logits.shape[-1]), 0, self.never)[1:]
        else:
            hidden = self.model.base_model(**some).last_hidden_state[:, -width:]
            tokens, finite = self._emitted(hidden.reshape(-1, hidden.shape[-1]))
        if any(layer.used != at + ids.shape[1] for layer in self.cache.layers):
            raise ValueError(
                f"{type(self.model).__name__} does not use the keys and values that it is given; take a transformer "
                "of the transformers library."
            )
        if not bool(finite.all()):
            raise ValueError(
                f"the logits of {int((~finite).sum())} of {len(finite)} positions are NaN or infinite; use a wider "
                "dtype, or leave the checkpoint out."
            )
        return tokens.view(len(ids), width)

    def _emitted(self, hidden: Float[Tensor, "m dim"]) -> tuple[Int[Tensor, "m"], Tensor]:
        """The likeliest token of each position, by blocks of the vocabulary, and whether its logit is a number."""
        assert self.head is not None
        weight, bias = self.head
        best: Tensor | None = None
        tokens = finite = hidden.new_zeros(0)
        for start in range(0, len(weight), COLUMNS):
            stop = start + COLUMNS
            block = torch.nn.functional.linear(hidden, weight[start:stop], None if bias is None else bias[start:stop])
            value, place, sound = _likeliest(block, start, self.never)
            if best is None:
                best, tokens, finite = value, place, sound
                continue
            better = value > best
            best, tokens = torch.where(better, value, best), torch.where(better, place, tokens)
            finite &= sound
        assert best is not None
        return tokens, finite & (best > -torch.inf)

    def _reorder(self, by_place: Int[Tensor, "rows"], begin: int, end: int) -> None:
        """Bring the rows from `begin` on into another order, as far as they are written."""
        if bool((by_place[1:] > by_place[:-1]).all()):
            return
        for layer in self.cache.layers:
            for kept in (layer.all_keys, layer.all_values):
                part = kept[begin : begin + len(by_place), :, :end]
                part.copy_(part[by_place])


def check_never(model: PreTrainedModel, never: Sequence[int]) -> None:
    """ValueError for a token that is never to be emitted and that the model does not have."""
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr]
    wrong = [token for token in never if not 0 <= token < vocabulary]
    if wrong:
        raise ValueError(
            f"never names the token {wrong[0]}, and the model has tokens 0 to {vocabulary - 1}; give ids of its own "
            "tokenizer."
        )


def _likeliest(
    logits: Float[Tensor, "m columns"], start: int, never: Sequence[int]
) -> tuple[Float[Tensor, "m"], Int[Tensor, "m"], Tensor]:
    """Largest logit of a block of columns that begins at `start`, its token, and whether no logit is NaN or +∞."""
    for token in never:
        if start <= token < start + logits.shape[1]:
            logits[:, token - start] = -torch.inf
    value, place = logits.max(dim=1)
    return value, place + start, value < torch.inf


class _SharedLayer(DynamicLayer):
    """Keys and values of all rows in memory taken once; a pass reads and writes `rows` of it, from `used` on."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.positions, self.used, self.rows = positions, 0, slice(0, 0)
        self.all_keys = self.all_values = torch.empty(0)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values, and give back all of these rows so far."""
        end = self.used + key_states.shape[-2]
        if len(self.all_keys) < self.rows.stop:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.all_keys, self.all_values = (
                states.new_empty((self.rows.stop, states.shape[1], self.positions, states.shape[-1]))
                for states in (key_states, value_states)
            )
        self.all_keys[self.rows, :, self.used : end] = key_states
        self.all_values[self.rows, :, self.used : end] = value_states
        self.used = end
        return self.all_keys[self.rows, :, :end], self.all_values[self.rows, :, :end]

    def get_seq_length(self) -> int:
        """Positions that the rows of this pass hold."""
        return self.used
