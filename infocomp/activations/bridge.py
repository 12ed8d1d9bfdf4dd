"""Sites inside a block, through TransformerLens's TransformerBridge with raw weights (nothing folded, nothing centred).

A TransformerBridge replaces the modules of the model that it is given, renames the keys of its state dict and turns its
attention to eager. So it is given a twin: a copy of the model's modules that shares the model's parameters and buffers.
The model that the caller holds stays as it is, and weights are in memory once, except for the fused query-key-value
matrices of GPT-NeoX, of which a bridge holds a split copy (a quarter of a Pythia's blocks).

While `Bridge.hooked` is open, the module that runs the blocks is answered by its twin. The model is called as ever, as
a whole or by its base model, and what it returns comes from the same eager pass as the activations.
"""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from infocomp.activations.sites import NORMALIZED, places

PROBE_BATCH = 2
PROBE_LENGTHS = (3, 4)  # of two lengths, so that a number of heads is never taken for the number of positions
END_OF_TEXT = "<|endoftext|>"
_levels = itertools.count(1_000_000)  # TransformerLens removes hooks by level: each use has its own


class BridgeUnavailable(ValueError):
    """TransformerBridge cannot wrap this model."""


class Bridge:
    """A TransformerBridge around the twin of a model, and the sites that it offers.

    `sites` are the names that hold one vector for each position, in the order in which a pass reaches them; `refused`
    gives every other name with the reason; `transformer_bridge` is the TransformerBridge itself.
    """

    def __init__(self, model: nn.Module, transformer_bridge: Any, twin_base: nn.Module) -> None:
        self.transformer_bridge = transformer_bridge
        self._twin_base = twin_base
        self._weights = _versions(model)
        self._points = dict(transformer_bridge.hook_dict)
        self.sites, self.refused = self._try_out(next(model.parameters()).device)

    @contextlib.contextmanager
    def hooked(self, model: nn.Module, sites: Iterable[str], take: Callable[[str, Tensor], None]) -> Iterator[None]:
        """While this is open, the model's blocks run in the bridge and `take(site, activations)` is given each site.

        Heads are laid side by side: [batch, position, head, dim] becomes [batch, position, head · dim]. Raises
        ValueError where the weights are not those that the bridge was built from (it may hold copies of them), where
        other hooks sit on the blocks (they would not run), or where a bridge is open on this model already.
        """
        base, sites = places(model).base, list(sites)
        if _versions(model) != self._weights:
            raise ValueError("bridge was built from other weights than the model has now: build it anew by bridge_for.")
        if isinstance(vars(base).get("forward"), _AnsweredBy):
            raise ValueError("model is captured through a bridge already: ask for all its sites in one capture.")
        _refuse_hooks_inside(base)
        self._twin_base.train(base.training)
        dtype, level = next(model.parameters()).dtype, next(_levels)

        def hook_of(site: str) -> Callable[..., None]:
            def hook(activations: Tensor, hook: Any) -> None:
                # TransformerBridge keeps this one site in float32, whatever the model's dtype
                take(site, activations.to(dtype) if site == NORMALIZED else activations.flatten(2))

            return hook

        points = {site: self._point(site) for site in sites}
        try:
            for site, point in points.items():
                point.add_hook(hook_of(site), level=level)
            base.forward = _AnsweredBy(self._twin_base)
            yield
        finally:
            vars(base).pop("forward", None)
            for point in points.values():
                point.remove_hooks("fwd", level=level)

    def _point(self, site: str) -> Any:
        if site not in self.sites:
            raise ValueError(f"site {site!r} {self.refused.get(site, 'is none that TransformerBridge has')}.")
        return self._points[site]

    def _try_out(self, device: torch.device) -> tuple[list[str], dict[str, str]]:
        """Find out by short passes which names are reached, and which hold [batch, position, ...]."""
        names: dict[int, list[str]] = {}
        for name, point in self._points.items():
            names.setdefault(id(point), []).append(name)
        level, passes = next(_levels), []
        for length in PROBE_LENGTHS:
            shapes: dict[int, list[tuple[int, ...]]] = {}

            def note(activations: Any, hook: Any, shapes: dict[int, list[tuple[int, ...]]] = shapes) -> None:
                real = isinstance(activations, Tensor) and activations.is_floating_point()
                shapes.setdefault(id(hook), []).append(tuple(activations.shape) if real else ())

            try:
                for point in {id(point): point for point in self._points.values()}.values():
                    point.add_hook(note, level=level)
                with torch.no_grad():
                    self._twin_base(torch.zeros(PROBE_BATCH, length, dtype=torch.long, device=device))
            finally:
                for point in self._points.values():
                    point.remove_hooks("fwd", level=level)
            passes.append(shapes)
        faults = {key: _fault([shapes.get(key, []) for shapes in passes]) for key in names}
        reached = [*passes[0], *(key for key in names if key not in passes[0])]
        sites = [name for key in reached if not faults[key] for name in names[key]]
        return sites, {name: fault for key in reached if (fault := faults[key]) for name in names[key]}


def bridge_for(model: nn.Module, tokenizer: PreTrainedTokenizerBase | None = None) -> Bridge:
    """Build a bridge for `capture(model, sites, bridge=...)`, leaving the model as it is.

    The model must be a whole causal language model (GPTNeoXForCausalLM, not GPTNeoXModel). A tokenizer is needed by the
    TransformerBridge's own conveniences only (`to_tokens`, `generate`), which get a copy of it. Free a bridge by `del`
    and `gc.collect()`, since it is part of a reference cycle. Importing TransformerLens takes seconds, once.

    Raises BridgeUnavailable (a ValueError) for an architecture that TransformerBridge does not know, and ValueError
    where hooks sit on the blocks.
    """
    from transformer_lens.model_bridge import TransformerBridge

    found, kind = places(model), type(model).__name__
    if not found.base_path:
        raise BridgeUnavailable(
            f"{kind} is a bare stack of blocks, a bridge needs the causal language model around it."
        )
    _refuse_hooks_inside(found.base)
    with torch.inference_mode(False), torch.no_grad():
        twin = _twin(model)
        twin_base = twin.get_submodule(found.base_path)
        weight = next(model.parameters())
        try:
            transformer_bridge = TransformerBridge.boot_transformers(
                "infocomp/model",  # never looked up: model and tokenizer are given
                hf_model=twin,
                tokenizer=_stand_in() if tokenizer is None else _as_it_is(tokenizer),
                device=str(weight.device),
                dtype=weight.dtype,
            )
        except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise BridgeUnavailable(f"TransformerBridge cannot wrap {kind} ({reason}).") from error
        return Bridge(model, transformer_bridge, twin_base)


class _AnsweredBy:
    """The forward of a module whose work its twin does, without a gradient (a bridge may hold copies of weights)."""

    def __init__(self, twin: nn.Module) -> None:
        self.twin = twin

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.twin.training and torch.is_grad_enabled():
            raise RuntimeError(
                "a model in training mode is captured through a bridge, which has no gradient: "
                "call model.eval(), or wrap the call in torch.no_grad()."
            )
        with torch.no_grad():
            return self.twin(*args, **kwargs)


def _twin(model: nn.Module) -> Any:
    """The same modules again around the same tensors, with a configuration of their own and without others' hooks."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin: Any = copy.deepcopy(model, shared)
    for module in twin.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if not _is_transformers_own(hook)]:
                del hooks[key]
    twin.config.architectures = [type(model).__name__]  # what TransformerBridge goes by
    return twin


def _is_transformers_own(hook: Any) -> bool:
    """The hooks that transformers itself leaves on its modules to answer `output_hidden_states=True`."""
    return getattr(hook, "__module__", "") == "transformers.utils.output_capturing"


def _refuse_hooks_inside(base: nn.Module) -> None:
    for name, module in base.named_modules():
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        if name and ("forward" in vars(module) or not all(map(_is_transformers_own, hooks))):
            raise ValueError(
                f"module {name!r} of the model has a hook or a replaced forward, which would not run in a bridge: "
                "remove it, or ask for sites outside the blocks only."
            )


def _versions(model: nn.Module) -> list[tuple[int, int, int]]:
    """Which tensors the weights are, where they lie, and how often each was written to in place."""
    return [(id(p), p.data_ptr(), 0 if p.is_inference() else p._version) for p in model.parameters()]


def _fault(passes: list[list[tuple[int, ...]]]) -> str:
    """What is wrong with a hook point, by the shapes it held in each pass; empty where nothing is."""
    for length, shapes in zip(PROBE_LENGTHS, passes, strict=True):
        if not shapes:
            return "is not reached by a pass of the base model (TransformerBridge leaves it off, or it is in the head)"
        if len(shapes) > 1:
            return f"is reached {len(shapes)} times in one forward pass, so it has no one activation"
        if not shapes[0]:
            return "holds no real numbers"
        if len(shapes[0]) < 3 or shapes[0][:2] != (PROBE_BATCH, length):
            return (
                f"holds {list(shapes[0])} for {PROBE_BATCH} sequences of {length} tokens, "
                "not one vector for each position as [batch, position, ...]"
            )
    return ""


def _stand_in() -> PreTrainedTokenizerFast:
    """A tokenizer of one word: without any, TransformerBridge asks the hub for one. No BOS, or it would reload it."""
    words = Tokenizer(WordLevel({END_OF_TEXT: 0}, unk_token=END_OF_TEXT))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT)


def _as_it_is(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that TransformerBridge takes as it is: it reloads one that has a BOS token and no `add_bos_token`."""
    taken = copy.deepcopy(tokenizer)
    taken.init_kwargs = {"name_or_path": "", **taken.init_kwargs, "add_bos_token": True}
    return taken
