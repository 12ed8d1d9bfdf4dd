"""Names of the places in a decoder where activations are read, and the modules that stand there.

The names are TransformerLens's. Five kinds are *plain*: an ordinary forward hook reaches them,
whatever the attention implementation.

    hook_embed                   output of the token embedding
    blocks.{i}.hook_resid_pre    input of block i
    blocks.{i}.hook_resid_post   output of block i (Hugging Face's hidden_states[i + 1], except after the last block)
    ln_final.hook_normalized     the final norm before its affine part
    ln_final.hook_out            the final norm after it (Hugging Face's last_hidden_state)

Every other name (blocks.{i}.attn.hook_z, blocks.{i}.mlp.hook_post, ...) lies inside a block and is read through
bridge.py. Modules are discovered, not listed by architecture: see `places`.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from infocomp.activations.bridge import Bridge

EMBED = "hook_embed"
NORMALIZED = "ln_final.hook_normalized"
FINAL = "ln_final.hook_out"


@dataclass(frozen=True)
class Places:
    """The modules that the plain sites belong to; `base` is the one whose forward runs the blocks."""

    base: nn.Module
    base_path: str
    embedding: nn.Module
    blocks: Sequence[nn.Module]
    final_norm: nn.Module


def site_names(model: Any, bridge: "bool | Bridge" = False) -> list[str]:
    """Every site of the model, in the order in which a forward pass reaches it.

    `model` may be its configuration alone, which is enough for the plain sites. With `bridge=True` the sites inside
    the blocks follow, for which a TransformerBridge is built and dropped again (seconds); a bridge from `bridge_for`
    is used as it is.
    """
    layers = range(_decoder_config(model).num_hidden_layers)
    inner = [f"blocks.{i}.hook_resid_{side}" for i in layers for side in ("pre", "post")]
    plain = [EMBED, *inner, NORMALIZED, FINAL]
    if bridge is False:
        return plain
    if bridge is True:
        from infocomp.activations.bridge import bridge_for

        bridge = bridge_for(model)
    return plain + [name for name in bridge.sites if name not in plain]


def default_sites(model: Any) -> list[str]:
    """The sites of an information plane: embedding, each block's output, the final norm before its affine part."""
    return [name for name in site_names(model) if name in (EMBED, NORMALIZED) or name.endswith(".hook_resid_post")]


def layer_of(site: str) -> int | None:
    """The block that a site belongs to, from 0; None for the embedding, the final norm and all else outside them."""
    match = re.match(r"blocks\.(\d+)\.", site)
    return int(match[1]) if match else None


def resolve_sites(model: Any, patterns: str | Iterable[str], bridge: "Bridge | None" = None) -> list[str]:
    """Site names for names and globs (`blocks.*.hook_resid_post`), each once, in the order asked for.

    A glob stands for the plain sites that it matches; only where it matches none of them are the sites inside the
    blocks looked at (so `blocks.0.*` never builds a bridge). Raises KeyError, naming the nearest three, for a name or
    a glob that matches nothing, and ValueError for a site that exists but holds no vector for each position (an
    attention pattern, say).
    """
    return resolve_with_bridge(model, patterns, bridge)[0]


def resolve_with_bridge(
    model: Any, patterns: str | Iterable[str], bridge: "Bridge | None" = None
) -> "tuple[list[str], Bridge | None]":
    """`resolve_sites`, and the bridge that had to be built for it, or the one given, or None where none was needed."""
    plain, found = site_names(model), []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = _matching(pattern, plain)
        if not matches:
            bridge = bridge or _bridge_or_unknown(model, pattern, plain)
            matches = _matching(pattern, bridge.sites)
            if not matches:
                refused = _matching(pattern, bridge.refused)
                if refused:
                    raise ValueError(f"site {refused[0]!r} {bridge.refused[refused[0]]}.")
                raise unknown_site(pattern, site_names(model, bridge))
        found += matches
    return list(dict.fromkeys(found)), bridge


def _bridge_or_unknown(model: Any, name: str, plain: list[str]) -> "Bridge":
    """A bridge, to look `name` up; where none can be had the plain sites are all there is, and `name` is unknown."""
    from infocomp.activations.bridge import BridgeUnavailable, bridge_for

    sentence = unknown_site(name, plain).args[0].rstrip(".")
    if not isinstance(model, nn.Module):
        raise KeyError(f"{sentence}; sites inside a block are known only from the model, not from its configuration.")
    try:
        return bridge_for(model)
    except BridgeUnavailable as error:
        raise KeyError(f"{sentence}; sites inside a block are out of reach: {error}") from error


def unknown_site(name: str, known: Iterable[str]) -> KeyError:
    """The error for a name or glob that matches no site: it gives the nearest three names."""
    nearest = difflib.get_close_matches(name, list(known), n=3, cutoff=0.0)
    what = "no site matches" if _is_glob(name) else "no site named"
    return KeyError(f"{what} {name!r}; closest are {', '.join(repr(near) for near in nearest)}.")


def places(model: nn.Module) -> Places:
    """The embedding, the blocks and the final norm of any decoder that is built in the usual way.

    The blocks are the outermost ModuleList with `num_hidden_layers` entries; the final norm is the one norm beside
    that list (where there are several: the one registered after it); the embedding is what `get_input_embeddings()`
    gives. Raises ValueError, saying what was not found, for a model built otherwise and for an encoder-decoder.
    """
    kind, config = type(model).__name__, _decoder_config(model)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"model {kind} is an encoder-decoder, which has no single stream: pass a decoder-only model.")
    find_embedding: Any = getattr(model, "get_input_embeddings", lambda: None)
    embedding = find_embedding()
    if embedding is None:
        raise ValueError(
            f"model {kind} has no get_input_embeddings(), which finds hook_embed: pass a Hugging Face model."
        )
    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    lists = [(name, m) for name, m in lists if len(m) == config.num_hidden_layers]
    depth = min((name.count(".") for name, _ in lists), default=0)
    outermost = [(name, m) for name, m in lists if name.count(".") == depth]
    if len(outermost) != 1:
        raise ValueError(
            f"model {kind} has {len(outermost)} lists of num_hidden_layers = {config.num_hidden_layers} modules "
            f"({', '.join(name for name, _ in outermost) or 'none'}), one is needed: "
            "this architecture is not understood."
        )
    path, blocks = outermost[0]
    base_path = path.rpartition(".")[0]
    base = model.get_submodule(base_path)
    children = list(base.children())
    norms = [child for child in children if "norm" in type(child).__name__.lower()]
    if len(norms) > 1:
        norms = [norm for norm in norms if children.index(norm) > children.index(blocks)]
    if len(norms) != 1:
        raise ValueError(
            f"model {kind} has {len(norms)} norms beside its blocks in {base_path or kind!r}, "
            "one final norm is needed: this architecture is not understood."
        )
    return Places(base, base_path, embedding, list(blocks), norms[0])


def _decoder_config(model: Any) -> Any:
    """The part of a configuration that describes the decoder, of a model or of the configuration itself."""
    config = getattr(model, "config", model)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    if not isinstance(getattr(config, "num_hidden_layers", None), int):
        kind = type(model).__name__
        raise ValueError(
            f"model {kind} has no config.num_hidden_layers, which names its sites: pass a Hugging Face model."
        )
    return config


def _is_glob(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    if _is_glob(pattern):
        return [name for name in names if fnmatchcase(name, pattern)]
    return [pattern] if pattern in names else []
