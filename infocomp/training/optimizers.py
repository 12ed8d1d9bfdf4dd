"""How weights move: optimizer settings that build plain torch optimizers.

Sources: AdamW, Loshchilov & Hutter (2019), arXiv 1711.05101; Muon, Jordan et al. (2024), as `torch.optim.Muon`, for the
hidden matrices, with AdamW for embeddings, output head and vectors.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat
from torch import nn
from torch.optim import Optimizer

Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


class AdamWSettings(BaseModel):
    """AdamW on every parameter; `decay_vectors` says whether biases and gains decay too."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    beta1: Share = 0.9
    beta2: Share = 0.999
    epsilon: PositiveFloat = 1e-8
    weight_decay: NotNegative = 0.0
    decay_vectors: bool = True

    def build(self, model: nn.Module) -> list[Optimizer]:
        return [self.over(list(model.parameters()))]

    def over(self, parameters: Sequence[nn.Parameter]) -> torch.optim.AdamW:
        """AdamW over some parameters, fused where torch can."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in trained)
        return torch.optim.AdamW(
            _decay_groups(trained, self.weight_decay, self.decay_vectors),
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            fused=fused,
        )


class MuonSettings(BaseModel):
    """Muon on the hidden matrices, `rest` on everything else.

    Hidden is every 2-D parameter that is neither an embedding nor the output head (as a Hugging Face model names it)
    nor matches a glob of `not_hidden`, by which other models name their heads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Literal["muon"] = "muon"
    learning_rate: PositiveFloat = 0.02
    momentum: Share = 0.95
    weight_decay: NotNegative = 0.0
    rest: AdamWSettings = AdamWSettings(beta2=0.95)
    not_hidden: Names = ()

    def build(self, model: nn.Module) -> list[Optimizer]:
        hidden = hidden_matrices(model, self.not_hidden)
        if not hidden:
            raise ValueError(f"{type(model).__name__} has no hidden matrix for Muon to move; use the optimizer 'adamw'")
        chosen = {id(parameter) for parameter in hidden}
        others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
        muon = torch.optim.Muon(hidden, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)
        return [muon, self.rest.over(others)] if others else [muon]


class SGDSettings(BaseModel):
    """Stochastic gradient descent with momentum."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 0.1
    momentum: Share = 0.0
    nesterov: bool = False
    weight_decay: NotNegative = 0.0

    def build(self, model: nn.Module) -> list[Optimizer]:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return [
            torch.optim.SGD(
                trained,
                lr=self.learning_rate,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
            )
        ]


OptimizerSettings = Annotated[AdamWSettings | MuonSettings | SGDSettings, Field(discriminator="name")]


def hidden_matrices(model: nn.Module, not_hidden: Sequence[str] = ()) -> list[nn.Parameter]:
    """The 2-D parameters that are neither embedding nor output head nor named by a glob; KeyError: a glob without any.

    A head whose weight is tied to the embedding is one parameter with it, and so is left out as well.
    """
    left_out = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    find_head = getattr(model, "get_output_embeddings", None)
    head = find_head() if callable(find_head) else None
    if isinstance(head, nn.Module):
        left_out |= {id(parameter) for parameter in head.parameters()}
    named = dict(model.named_parameters())
    for pattern in not_hidden:
        found = [name for name in named if fnmatchcase(name, pattern)]
        if not found:
            nearest = ", ".join(repr(name) for name in get_close_matches(pattern, named, n=3, cutoff=0.0))
            raise KeyError(f"not_hidden: no parameter matches {pattern!r}; closest are {nearest}")
        left_out |= {id(named[name]) for name in found}
    return [p for p in named.values() if p.ndim == 2 and p.requires_grad and id(p) not in left_out]


def _decay_groups(parameters: Sequence[nn.Parameter], weight_decay: float, decay_vectors: bool) -> list[dict]:
    """Parameter groups for torch: those that decay, then those that don't; an empty group is left out."""
    decays = [decay_vectors or parameter.ndim >= 2 for parameter in parameters]
    groups = [
        {"params": [p for p, decay in zip(parameters, decays, strict=True) if decay], "weight_decay": weight_decay},
        {"params": [p for p, decay in zip(parameters, decays, strict=True) if not decay], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
