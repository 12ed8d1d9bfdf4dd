"""Local learning coefficient: half the effective number of parameters that the loss feels around the weights.

Lau, Furman, Wang, Murfet & Wei (2023), arXiv 2308.12108: at weights w* and inverse temperature β = 1/ln n,

    λ̂(w*) = n β (E L(w) − L(w*)),   w drawn from exp(− n β L(w) − γ/2 |w − w*|²)

with L the mean loss of n rows in nats; λ̂ has no unit, is d/2 for a regular model of d parameters and less the more
directions leave the loss as it is. Draws come from Langevin steps of size ε with a pull γ back to w*,

    w ← w − ε/2 (n β ∇L(w) + γ (w − w*)) + √ε ξ,   ξ standard normal,

here with the gradient of all rows, so that no noise of minibatches adds to ξ. Where L is quadratic of curvatures h_i,
everything is known: after t steps E λ̂ = ½ Σ_i nβh_i (1 − r_i^2t) / (a_i (1 − εa_i/4)) with a_i = nβh_i + γ and
r_i = 1 − εa_i/2, which tends to d/2 for long chains, small ε and γ. The number depends on ε, γ and the length of the
chains: those of one comparison share them, and its steps are too large where εa_i reaches 4, where the chains diverge.
It may be negative at weights that are no minimum; it is not clipped.

`learning_coefficient` needs nothing else; `learning_coefficient_by_devinterp` has the same draws made by devinterp
(an extra), for those who compare with numbers made by it.
"""

import contextlib
import io
import math
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import t as student
from torch import Tensor, nn

LEVEL = 0.95
RowLosses = Callable[[nn.Module, Int[Tensor, "batch"]], Float[Tensor, "batch"]]


@dataclass(frozen=True)
class Sampling:
    """How the weights around w* are drawn: `chains` of `burn_in` + `draws` Langevin steps.

    step_size: ε. localization: γ. inverse_temperature: β, 1/ln n where it is None (Lau et al. 2023).
    ε and γ are to be tuned to the model; these suit weights of about 0.1: the pull alone lets a weight stray by 1/√γ =
    0.03 and is in balance after 2/(εγ) = 20 steps, and curvatures up to 4/(ε n β) = 200 at 1,392 rows are stable.
    (devinterp's own defaults are 4 chains of 200 draws with no burn-in and no pull; ε and n β it asks for.)
    ValueError: fewer than one chain or draw, a negative burn-in or localization, a step or temperature not above 0.
    """

    chains: int = 4
    draws: int = 50
    burn_in: int = 50
    step_size: float = 1e-4
    localization: float = 1000.0
    inverse_temperature: float | None = None

    def __post_init__(self) -> None:
        positive = {"chains": self.chains, "draws": self.draws, "step_size": self.step_size}
        if self.inverse_temperature is not None:
            positive["inverse_temperature"] = self.inverse_temperature
        rules = [(name, value, "above 0", value > 0) for name, value in positive.items()]
        others = {"burn_in": self.burn_in, "localization": self.localization}
        rules += [(name, value, "at least 0", value >= 0) for name, value in others.items()]
        for name, value, rule, kept in rules:
            if not kept:
                raise ValueError(
                    f"{name} of the sampling is {value} and must be {rule}; the defaults are {Sampling()}."
                )

    def n_beta(self, rows: int) -> float:
        """n β. ValueError: fewer than 2 rows, where 1/ln n is none."""
        if self.inverse_temperature is not None:
            return rows * self.inverse_temperature
        if rows < 2:
            raise ValueError(f"rows is {rows}, and β = 1/ln n needs at least 2 rows; give an inverse_temperature.")
        return rows / math.log(rows)


@dataclass(frozen=True)
class LearningCoefficient:
    """λ̂ with its 95 % t interval over chains (None for one chain), which says nothing of chains that are too short.

    by_chain: λ̂ of each. drift: λ̂ of the second half of the draws less that of the first, large where chains still
    climb. loss: L(w*), nats. n_beta: n β. trace: loss of each chain before each step, burn-in too, nats.
    """

    value: float
    low: float | None
    high: float | None
    by_chain: tuple[float, ...]
    drift: float | None
    loss: float
    n_beta: float
    sampling: Sampling
    seconds: float
    trace: Float[np.ndarray, "chains steps"] = field(compare=False, repr=False)


def learning_coefficient(
    model: nn.Module,
    loss: Callable[[], Tensor],
    rows: int,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> LearningCoefficient:
    """λ̂ at the model's weights, by Langevin steps with the gradient of the whole loss.

    `loss` gives the mean loss in nats over all `rows` training rows with the weights that the model has at that moment,
    as a tensor that gradients can be taken of. All parameters that ask for a gradient move; afterwards they have the
    same bits as before, and their gradients are what they were. The default is 400 gradients: 6 s on one thread for a
    transformer of 147,328 weights on 1,392 rows.
    Source: Lau et al. (2023), arXiv 2308.12108.
    ValueError: rows below 2, or a loss that is not finite at the weights. FloatingPointError: a chain that diverged.
    """
    sampling, started = sampling or Sampling(), time.perf_counter()
    n_beta = sampling.n_beta(rows)
    parameters = [one for one in model.parameters() if one.requires_grad]
    if not parameters:
        raise ValueError("no parameter of the model asks for a gradient, so that none can be moved; unfreeze some.")
    centre, gradients = [one.detach().clone() for one in parameters], [one.grad for one in parameters]
    generator = torch.Generator(device=centre[0].device).manual_seed(seed)
    traces = []
    try:
        for _ in range(sampling.chains):
            _place(parameters, centre)
            traces.append(list(_chain(parameters, centre, loss, n_beta, sampling, generator)))
    finally:
        _place(parameters, centre)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
    trace = np.array(traces)
    return _summary(trace, float(trace[0, 0]), n_beta, sampling, time.perf_counter() - started)


def learning_coefficient_by_devinterp(
    model: nn.Module,
    row_losses: RowLosses,
    rows: int,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> LearningCoefficient:
    """λ̂ from draws made by devinterp's sampler on a copy of the model, with all rows as one batch.

    `row_losses(model, numbers)` gives the loss in nats of the training rows with those numbers, 0 to rows − 1, under
    the model that it is handed. Generators of random numbers and the model are left as they were.
    Source: Lau et al. (2023), arXiv 2308.12108; devinterp 2.0.
    ModuleNotFoundError: devinterp is not installed. Others as `learning_coefficient`.
    """
    sampling, started = sampling or Sampling(), time.perf_counter()
    n_beta = sampling.n_beta(rows)
    try:
        from datasets import Dataset
        from devinterp.slt.sampling import sample  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"the learning coefficient by devinterp needs a package that is not installed ({missing.name}); pip "
            "install 'infocomp[devinterp]', or call learning_coefficient, which needs none."
        ) from missing

    def losses(copy: nn.Module, ids: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch 1"]:
        return row_losses(copy, ids[:, 0])[:, None]

    numbered = Dataset.from_dict({"input_ids": [[number, 0] for number in range(rows)]}).with_format("torch")
    with _random_state_kept(), tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            tree = sample(
                model,
                numbered,
                {},
                lr=sampling.step_size,
                n_beta=n_beta,
                num_chains=sampling.chains,
                num_draws=sampling.draws + sampling.burn_in,
                batch_size=rows,
                num_init_loss_batches=1,
                init_seed=seed,
                localization=sampling.localization,
                shuffle=False,
                device=str(next(model.parameters()).device),
                output_path=Path(folder) / "draws.zarr",
                loss_fn=losses,
            )
        failed = [str(one.message) for one in said if "Chain failed" in str(one.message)]
        trace = tree.dataset["sampling_loss"].values.astype(np.float64).mean(axis=(-1, -2))
        first = float(tree.dataset["init_loss"].values.mean())
    if failed:
        raise _diverged(sampling, failed[0])
    return _summary(trace, first, n_beta, sampling, time.perf_counter() - started)


def _chain(
    parameters: list[nn.Parameter],
    centre: list[Tensor],
    loss: Callable[[], Tensor],
    n_beta: float,
    sampling: Sampling,
    generator: torch.Generator,
) -> Iterator[float]:
    """The loss before each step, nats, the first at w*."""
    step = sampling.step_size
    for number in range(sampling.burn_in + sampling.draws):
        with torch.enable_grad():
            now = loss()
            gradients = torch.autograd.grad(now, parameters, allow_unused=True)
        found = float(now.detach())
        if not math.isfinite(found):
            if not number:
                raise ValueError(f"the loss at the model's weights is {found}; take an earlier step.")
            raise _diverged(sampling, f"the loss is {found} after {number} steps")
        yield found
        with torch.no_grad():
            for parameter, gradient, start in zip(parameters, gradients, centre, strict=True):
                pull = sampling.localization * (parameter - start)
                if gradient is not None:
                    pull = pull + n_beta * gradient
                noise = torch.empty_like(parameter).normal_(generator=generator)
                parameter.sub_(pull, alpha=step / 2).add_(noise, alpha=math.sqrt(step))


def _summary(trace: np.ndarray, first: float, n_beta: float, sampling: Sampling, seconds: float) -> LearningCoefficient:
    drawn = n_beta * (trace[:, sampling.burn_in :] - first)
    chains, half = drawn.mean(axis=1), drawn.shape[1] // 2
    value, low, high = float(chains.mean()), None, None
    if len(chains) > 1:
        error = float(chains.std(ddof=1) / math.sqrt(len(chains)))
        width = error * float(student.ppf(0.5 + LEVEL / 2, len(chains) - 1))
        low, high = value - width, value + width
    drift = float(drawn[:, -half:].mean() - drawn[:, :half].mean()) if half else None
    by_chain = tuple(float(one) for one in chains)
    return LearningCoefficient(value, low, high, by_chain, drift, first, n_beta, sampling, seconds, trace)


def _diverged(sampling: Sampling, what: str) -> FloatingPointError:
    return FloatingPointError(
        f"a chain of the learning coefficient diverged at step_size {sampling.step_size:g}: {what.rstrip('.')}; take a "
        "smaller step_size."
    )


def _place(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """devinterp seeds the global generators of random, numpy and torch; they are put back."""
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(cpu)
