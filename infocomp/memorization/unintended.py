"""Unintended memorization of samples against a reference model, in bits: what a model knows of these very samples.

Morris et al. (2025), arXiv 2505.24832, say how many bits of a sample x a model θ̂ holds beyond what a reference θ, which
stands for the process behind the data, knows already: mem_U(x) = H(x|θ) − H(x|θ, θ̂). With code lengths
L = −log2 p for Kolmogorov's complexities, and the better of both models where both may be used, each sample has

    mem_U(x) = L(x|θ) − min(L(x|θ), L(x|θ̂)) = max(log2 p(x|θ̂) − log2 p(x|θ), 0)            (their likelihood estimator)

which is never negative: a model that is worse than the reference on x adds nothing, since the reference is there too.
Samples that are independent given the process carry Σ_i mem_U(x_i) ≤ mem_U(X) ≤ H(θ̂) (their proposition 1): a sum over
samples is a lower bound. But the clip makes it positive with nothing memorized: E max(D, 0) ≥ max(E D, 0) for every
random difference D (Jensen), strictly where D takes both signs. So the same sum over never-trained samples of the same
kind is its null, and "memorized" is the excess over it: where training has told members from never-trained samples in
nothing, both have one law and the excess is 0 on average.

The pointwise minimum is no code: Σ_x 2^−min(…) may be as much as 2. The even mixture of both models is one and costs at
most one bit a sample more (`mixture_bits`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student

from infocomp.estimators.jackknife import FEWEST_DOCUMENTS, LEVEL

Bits = Float[np.ndarray, "n"]
Owners = Int[np.ndarray, "n"]


@dataclass(frozen=True)
class Total:
    """A sum over the members, bits, with its standard error and 95 % interval over documents, None below 8 of them."""

    value: float
    std_error: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None

    def columns(self) -> dict[str, float | None]:
        """As columns of the table."""
        return {"value": self.value, "std_error": self.std_error, "ci_low": self.ci_low, "ci_high": self.ci_high}


@dataclass(frozen=True)
class Unintended:
    """Bits over all `n` members, each with its error by document.

    clipped: Σ max(reference − model, 0) over members. null: the same over the `m` never-trained samples, times n/m.
    excess: clipped − null, the bits that are called memorized. gain: Σ (reference − model) over members, what one code
    for all of them, the model's, gains over the reference's; below 0 where the model is the worse one. gain_null: the
    same over the never-trained ones, times n/m, often far below 0; a gain less its null also counts what the model lost
    on text that it never saw, and may exceed all there is to memorize. mixture: Σ reference − mixture code over
    members, a proper code, between clipped − n and clipped; mixture_null: over the never-trained ones, times n/m.
    ceiling: Σ reference over members, all that there is to memorize.
    """

    clipped: Total
    null: Total
    excess: Total
    gain: Total
    gain_null: Total
    mixture: Total
    mixture_null: Total
    ceiling: float
    n: int
    m: int
    n_documents: int
    m_documents: int


def unintended(
    model_bits: Bits,
    reference_bits: Bits,
    unseen_model_bits: Float[np.ndarray, "m"],
    unseen_reference_bits: Float[np.ndarray, "m"],
    documents: Owners | None = None,
    unseen_documents: Int[np.ndarray, "m"] | None = None,
    shared_documents: bool = False,
) -> Unintended:
    """Bits memorized of `n` members, from the code length in bits of each under the model and under the reference.

    `unseen_…` are the code lengths of never-trained samples of the same kind and length, from other documents. The
    numbers of documents are the clusters of the intervals (each sample one of its own where they are None). The
    intervals hold the error of drawing both samples. Those of members and of never-trained samples are counted apart,
    with the degrees of freedom of Welch (1947), Biometrika 34(1-2); with `shared_documents` one number is one document
    on both sides, whose parts go into a difference together.
    Source: Morris et al. (2025), section 3 and proposition 1; the null and the excess are ours.
    ValueError: samples and code lengths that do not match, none at all, or a code length that is no finite number ≥ 0.
    """
    members = _Sample.of("members", model_bits, reference_bits, documents)
    others = _Sample.of("never-trained samples", unseen_model_bits, unseen_reference_bits, unseen_documents)
    n = len(members.gain)
    clip = [np.maximum(one.gain, 0.0) for one in (members, others)]
    proper = [one.reference - mixture_bits(one.model, one.reference) for one in (members, others)]
    here, there = members.mean(clip[0]), others.mean(clip[1])
    return Unintended(
        clipped=_total(n, here),
        null=_total(n, there),
        excess=_difference(n, here, there, shared_documents),
        gain=_total(n, members.mean(members.gain)),
        gain_null=_total(n, others.mean(others.gain)),
        mixture=_total(n, members.mean(proper[0])),
        mixture_null=_total(n, others.mean(proper[1])),
        ceiling=float(members.reference.sum()),
        n=n,
        m=len(others.gain),
        n_documents=members.n_documents,
        m_documents=others.n_documents,
    )


def mixture_bits(model_bits: Bits, reference_bits: Bits) -> Bits:
    """Code length of each sample, bits, under the even mixture of both models: −log2(½ 2^−model + ½ 2^−reference).

    At most one bit above the shorter of both, and a proper code, which the pointwise minimum is not.
    """
    shorter = np.minimum(model_bits, reference_bits)
    return shorter + 1.0 - np.log2(1.0 + np.exp2(-np.abs(np.asarray(model_bits) - reference_bits)))


def check_same_tokenizer(model_hash: str, reference_hash: str, model: str = "model", reference: str = "ref") -> None:
    """ValueError unless both models read text through one tokenizer; the hashes are `corpora.tokens.tokenizer_hash`."""
    if model_hash != reference_hash:
        raise ValueError(
            f"reference {reference!r} has another tokenizer ({reference_hash}) than {model!r} ({model_hash}): code "
            "lengths of a sample are compared token for token; choose a reference with the same tokenizer."
        )


@dataclass(frozen=True)
class _Mean:
    """A mean over samples, and what each document moves it by."""

    value: float
    documents: np.ndarray
    moved: np.ndarray

    @property
    def variance(self) -> float:
        """Of the mean, over documents."""
        count = len(self.moved)
        return float(count / (count - 1) * (self.moved**2).sum()) if count > 1 else 0.0


@dataclass(frozen=True)
class _Sample:
    model: np.ndarray
    reference: np.ndarray
    owner: np.ndarray
    documents: np.ndarray

    @property
    def n_documents(self) -> int:
        return len(self.documents)

    @classmethod
    def of(cls, name: str, model: Bits, reference: Bits, documents: Owners | None) -> "_Sample":
        model, reference = np.asarray(model, dtype=np.float64), np.asarray(reference, dtype=np.float64)
        given: Sequence[np.ndarray] = [model, reference] + ([] if documents is None else [np.asarray(documents)])
        shapes = [one.shape for one in given]
        if model.ndim != 1 or len(set(shapes)) > 1 or not len(model):
            raise ValueError(
                f"{name} need one code length under each model and one document a sample, at least one sample, and "
                f"have shapes {', '.join(map(str, shapes))}; give arrays of one length."
            )
        for what, bits in (("model", model), ("reference", reference)):
            wrong = np.flatnonzero(~(np.isfinite(bits) & (bits >= 0)))
            if len(wrong):
                raise ValueError(
                    f"{name}: a code length is a finite number of bits from 0 up, and that of sample {wrong[0]} under "
                    f"the {what} is {bits[wrong[0]]}; leave out a model that diverged."
                )
        names, owner = np.unique(np.arange(len(model)) if documents is None else documents, return_inverse=True)
        return cls(model, reference, owner, names)

    @property
    def gain(self) -> np.ndarray:
        return self.reference - self.model

    def mean(self, values: np.ndarray) -> _Mean:
        """Document d moves the mean by Σ_{i∈d} (values_i − mean)/n, the linear term of the delta method."""
        value = float(values.mean())
        return _Mean(value, self.documents, np.bincount(self.owner, weights=values - value) / len(values))


def _total(n: int, mean: _Mean) -> Total:
    """n times a mean."""
    return _with_error(n, mean.value, [mean])


def _difference(n: int, mean: _Mean, less: _Mean, shared: bool) -> Total:
    """n times the difference of two means, independent ones or over shared documents."""
    value = mean.value - less.value
    if not shared:
        return _with_error(n, value, [mean, less])
    documents = np.union1d(mean.documents, less.documents)
    moved = np.zeros(len(documents))
    moved[np.searchsorted(documents, mean.documents)] += mean.moved
    moved[np.searchsorted(documents, less.documents)] -= less.moved
    return _with_error(n, value, [_Mean(value, documents, moved)])


def _with_error(n: int, value: float, means: Sequence[_Mean]) -> Total:
    value *= n
    if min(len(one.moved) for one in means) < FEWEST_DOCUMENTS:
        return Total(value)
    variance = sum(one.variance for one in means)
    if variance == 0.0:
        return Total(value, 0.0, value, value)
    freedom = 1 / sum((one.variance / variance) ** 2 / (len(one.moved) - 1) for one in means)
    half = n * float(np.sqrt(variance) * student.ppf((1 + LEVEL) / 2, freedom))
    return Total(value, n * float(np.sqrt(variance)), value - half, value + half)
