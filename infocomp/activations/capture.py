"""Activations of a model while it reads: `with capture(model, sites) as acts: model(ids); acts[site]`.

A capture sets PyTorch forward hooks on the model and takes every one of them away again when its block ends, also
after an exception. It holds the tensors of the last forward pass only, as the model made them: detached, [batch,
position, dim], in the model's own dtype and on its device, not copied. Plain sites (see sites.py) are read from the
model as it stands, with whatever attention it was loaded with, and cost next to nothing; as soon as one site lies
inside a block, the whole pass goes through TransformerBridge (see bridge.py) with eager attention.

A row of a padded position is a vector like any other and means nothing: leave those rows out. Padding on the right
never changes the rows of real tokens. Padding on the left does, unless `attention_mask` is passed (and, for learned
positions, `position_ids`). With `generate` the last forward pass is that of the last token.
"""

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infocomp.activations.bridge import Bridge
from infocomp.activations.sites import EMBED, FINAL, NORMALIZED, layer_of, places, resolve_with_bridge

Consumer = Callable[[str, Tensor], None]

EPSILON_NAMES = ("eps", "variance_epsilon", "epsilon")
CHECKED_ROWS = 64


class Capture(Mapping[str, Tensor]):
    """What `capture` gives: a mapping from site to activations [batch, position, dim] of the last forward pass.

    `sites` are the resolved names, `attention` the implementation that they are read with. `open` sets the hooks and
    `close` takes them away; the `with` statement calls both. The hooks may stay over any number of forward passes: each
    begins by dropping the tensors of the one before. The last ones stay after the `with` block, as long as this object.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: str | Iterable[str],
        bridge: Bridge | None = None,
        consume: Consumer | None = None,
    ) -> None:
        self.model = model
        self.consume = consume
        self._places = places(model)
        self._bridge_is_lent = bridge is not None
        self.sites, self._bridge = resolve_with_bridge(model, sites, bridge)
        own = getattr(model.config, "_attn_implementation", None)
        self.attention = own if self._bridge is None else "eager"
        self._held: dict[str, Tensor] = {}
        self._exits = contextlib.ExitStack()
        self._opened = False
        self._forwards = 0

    def open(self) -> "Capture":
        """Set the hooks; when that fails half-way, those already set are taken away."""
        if self._opened:
            raise RuntimeError("a capture is opened once: call capture(...) again.")
        self._opened = True
        with contextlib.ExitStack() as exits:
            exits.callback(self._places.base.register_forward_pre_hook(self._begin).remove)
            if self._bridge is not None:
                exits.enter_context(self._bridge.hooked(self.model, self.sites, self._take))
            else:
                for site in self.sites:
                    exits.callback(self._hook(site).remove)
            self._exits = exits.pop_all()
        return self

    def close(self) -> None:
        """Take every hook away, and free a bridge that was built for this capture alone; the activations stay."""
        self._exits.close()
        if self._bridge is not None and not self._bridge_is_lent:
            self._bridge = None
            gc.collect()  # a TransformerBridge is part of a reference cycle

    def __enter__(self) -> "Capture":
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, site: str) -> Float[Tensor, "batch position dim"]:
        if site in self._held:
            return self._held[site]
        if site not in self.sites:
            raise KeyError(f"site {site!r} is not captured here; captured are {', '.join(map(repr, self.sites))}.")
        if self.consume is not None:
            raise KeyError(f"site {site!r} was handed to `consume`, which is the only one to hold it.")
        if not self._forwards:
            raise KeyError(f"site {site!r} holds nothing yet: run the model inside the `with` block first.")
        raise KeyError(f"site {site!r} was not reached by the last forward pass: does the call skip that module?")

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def _begin(self, *_: object) -> None:
        self._forwards += 1
        self._held.clear()

    def _take(self, site: str, activations: Tensor) -> None:
        activations = activations.detach()
        if self.consume is None:
            self._held[site] = activations
        else:
            self.consume(site, activations)

    def _hook(self, site: str) -> Any:
        """Hook one plain site; the handle takes it away."""
        found, layer = self._places, layer_of(site)

        def outgoing(_: nn.Module, __: Any, output: Any) -> None:
            self._take(site, _first(output))

        def incoming(_: nn.Module, args: tuple, kwargs: dict) -> None:
            self._take(site, _input(args, kwargs))

        def before_affine(norm: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
            self._take(site, normalized(norm, _input(args, kwargs), output, check=self._forwards <= 1))

        if layer is not None:
            block = found.blocks[layer]
            if site.endswith(".hook_resid_pre"):
                return block.register_forward_pre_hook(incoming, with_kwargs=True)
            return block.register_forward_hook(outgoing)
        if site == NORMALIZED:
            return found.final_norm.register_forward_hook(before_affine, with_kwargs=True)
        return {EMBED: found.embedding, FINAL: found.final_norm}[site].register_forward_hook(outgoing)


def capture(
    model: nn.Module,
    sites: str | Iterable[str],
    bridge: Bridge | None = None,
    consume: Consumer | None = None,
) -> Capture:
    """Capture activations at `sites` (a name, a glob, or several) of every forward pass inside the `with` block.

    Call the model itself or only `model.base_model`. With `consume`, nothing is held: `consume(site, activations)` is
    called inside the forward pass, as soon as a site is computed, so that a layer can be dropped before the next one
    runs; an exception in it ends the forward pass and reaches the caller.

    Where one site lies inside a block, a bridge is built once and freed at the end (pass `bridge=bridge_for(model)` to
    keep one over several captures; then all sites are read through it). Inside such a block model(...) still answers,
    but its blocks run in the bridge: with eager attention, without gradient, and without hooks that others set.

    Raises KeyError, naming the nearest three, for a site that does not exist, and when a site is asked for before a
    forward pass; ValueError for a model whose architecture is not understood.

    >>> with capture(model, ["hook_embed", "blocks.*.hook_resid_post"]) as acts:     # doctest: +SKIP
    ...     model(ids)
    ...     acts["blocks.3.hook_resid_post"].shape                                   # [batch, position, dim]
    """
    return Capture(model, sites, bridge, consume)


def normalized(
    norm: nn.Module, rows: Float[Tensor, "*batch dim"], output: Float[Tensor, "*batch dim"], check: bool = True
) -> Float[Tensor, "*batch dim"]:
    """The rows as a LayerNorm or RMSNorm has them before its affine part, in the rows' dtype.

    (x − mean) / √(variance + ε), or x / √(mean square + ε), in float32 at least and with the norm's own ε, in the very
    operations of TransformerLens. With `check`, a few rows times the weight (w or 1 + w, and the bias) are compared
    with the norm's own `output`; ValueError when they are not the same, which is a norm of another kind.
    """
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    if weight is None and bias is None:
        return output
    kind = type(norm).__name__
    epsilon = next((getattr(norm, name) for name in EPSILON_NAMES if getattr(norm, name, None) is not None), None)
    exact = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    if epsilon is None:
        epsilon = torch.finfo(exact.dtype).eps  # torch.nn.RMSNorm's own default
    if "RMS" not in kind:
        exact = exact - exact.mean(-1, keepdim=True)
    exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + epsilon)
    if check and not _agrees(exact, weight, bias, output):
        raise ValueError(f"the final norm {kind} is not weight × normalised + bias, so {NORMALIZED!r} is not defined.")
    return exact.to(rows.dtype)


def _agrees(exact: Tensor, weight: Tensor | None, bias: Tensor | None, output: Tensor) -> bool:
    """Whether the norm's output is these rows times w, or times 1 + w as in Gemma, up to rounding."""
    rows = exact.detach().reshape(-1, exact.shape[-1])[:CHECKED_ROWS]
    found = output.detach().reshape(-1, output.shape[-1])[:CHECKED_ROWS].to(rows.dtype)
    shift = rows.new_zeros(rows.shape[-1]) if bias is None else bias.detach().to(rows.dtype)
    # a few roundings in the model's dtype, of numbers no larger than the row's largest, times the weight
    tolerance, largest = max(4 * torch.finfo(output.dtype).eps, 1e-5), 1.0 + rows.abs().amax(-1, keepdim=True)
    for offset in (0.0, 1.0):
        scale = rows.new_ones(rows.shape[-1]) if weight is None else weight.detach().to(rows.dtype) + offset
        close = (rows * scale + shift - found).abs() <= tolerance * (scale.abs() * largest + shift.abs())
        if bool((close | ~found.isfinite()).all()):
            return True
    return False


def _first(output: Any) -> Tensor:
    """The hidden states of a module that returns them alone or at the head of a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _input(args: tuple, kwargs: dict) -> Tensor:
    """The hidden states that a module is called with, by position or by name."""
    return args[0] if args else kwargs["hidden_states"]
