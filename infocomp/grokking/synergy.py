"""What groups of neurons hold together or several times over: O-information by Gaussian copula, in bits.

O-information of k variables (Rosas, Mediano, Gastpar & Jensen 2019, Phys. Rev. E 100, 032305):

    Ω = (k − 2) H(Z) + Σ_j [H(Z_j) − H(Z without Z_j)] = total correlation − dual total correlation

above 0 where redundancy dominates, below 0 where synergy does, exactly 0 for two variables. Entropies are those of a
Gaussian copula (Ince et al. 2017, Human Brain Mapping 38): each variable is replaced by the normal quantiles of its
ranks. With R their correlation matrix, Ω = −log |R| − ½ Σ_j log (R⁻¹)_jj. It is exact for a Gaussian copula; of other
dependence it sees what monotone pairs show: three bits with z = x xor y have Ω = −1 bit and look independent here.

Clauw, Stramaglia & Marinazzo (2024), arXiv 2408.08944, followed it through grokking: neurons are put into 10 clusters
(agglomerative, Ward), a cluster is the mean of its neurons, every multiplet of 2 to 10 clusters is measured; synergy is
−min Ω, redundancy max Ω, neither ever below 0 since pairs count. As the extreme of a thousand multiplets both are above
0 for independent clusters too, so each has its null: the same extremes with every cluster's rows shuffled on their own.

That null is weak: it says how far Ω strays where clusters are independent, and any correlated clusters beat it,
whatever the network has learnt. Neurons that read the same inputs are correlated before the first step: an untrained
transformer (1,392 rows, 256 neurons) had a synergy of 0.43 bits and a redundancy of 0.06 where the highest of the null
were 0.0006 and 0.0014. The telling baseline is the untrained network, the same measure at step 0.

A finite sample biases log-determinants by a known amount (Wishart; Anderson 2003, section 7.5), which is taken off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import digamma, ndtri
from scipy.stats import rankdata

from infocomp.units import bits

Rows = Float[np.ndarray, "rows variables"]
_COLLINEAR = 1e-10  # least eigenvalue of a correlation matrix that still counts as one


@dataclass(frozen=True)
class Synergy:
    """Extremes of Ω over multiplets of clusters, bits; None, with the `reason`, where there are none.

    null_synergy and null_redundancy: mean of the same extremes over shuffles; a weak null that any correlated clusters
    exceed: compare with the untrained network. null_synergy_high, null_redundancy_high: the largest over shuffles.
    synergy_clusters and redundancy_clusters: the multiplets, as numbers of clusters.
    neurons: those that are not constant, of which the `clusters` were made.
    """

    synergy: float | None
    redundancy: float | None
    null_synergy: float | None
    null_redundancy: float | None
    null_synergy_high: float | None
    null_redundancy_high: float | None
    synergy_clusters: tuple[int, ...]
    redundancy_clusters: tuple[int, ...]
    clusters: int
    neurons: int
    rows: int
    shuffles: int
    reason: str | None = None


def o_information(activations: Rows, corrected: bool = True) -> float:
    """Ω of all the variables of `activations`, bits; `corrected` takes off the bias of a sample of Gaussian rows.

    Source: Rosas et al. (2019), Phys. Rev. E 100, 032305, with the entropies of a Gaussian copula.
    ValueError: fewer than 2 variables, a constant one, no more rows than variables, or variables that fix each other.
    """
    correlation = _correlation(_normal_scores(_checked(activations)))
    if np.linalg.eigvalsh(correlation)[0] < _COLLINEAR:
        raise ValueError(
            f"the {correlation.shape[0]} variables determine each other, so that Ω has no finite value; leave out the "
            "copies."
        )
    rows, variables = np.shape(activations)
    return bits(float(_omega(correlation[None])[0]) - (_bias(variables, rows) if corrected else 0.0))


def synergy_and_redundancy(
    activations: Float[np.ndarray, "rows neurons"],
    clusters: int = 10,
    largest: int = 10,
    shuffles: int = 10,
    seed: int = 0,
) -> Synergy:
    """−min Ω and max Ω over all multiplets of 2 to `largest` clusters of neurons, bits, beside their nulls.

    Neurons that are constant over the rows take no part; with fewer than `clusters` left each is a cluster of its own.
    Source: Clauw et al. (2024), arXiv 2408.08944; the bias taken off and the nulls are ours.
    ValueError: activations that are no finite matrix, clusters or largest below 2, shuffles below 1.
    """
    if clusters < 2 or largest < 2 or shuffles < 1:
        raise ValueError(
            f"clusters and largest are at least 2 and shuffles at least 1, got {clusters}, {largest} and {shuffles}; "
            "10 of each are usual."
        )
    activations = _matrix(activations)
    rows, living = len(activations), activations[:, np.ptp(activations, axis=0) > 0]
    neurons = living.shape[1]
    means = cluster_means(living, neuron_clusters(living, clusters)) if neurons > 1 else living
    count = means.shape[1]
    if reason := _refusal(means):
        return Synergy(None, None, None, None, None, None, (), (), count, neurons, rows, shuffles, reason)
    scores, generator = _normal_scores(means), np.random.default_rng(seed)
    members = _multiplets(count, min(largest, count))
    omegas = _omegas(_correlation(scores), members, rows)
    flat = [group for groups in members for group in groups]
    shuffled = [_omegas(_correlation(generator.permuted(scores, axis=0)), members, rows) for _ in range(shuffles)]
    lows, highs = [-bits(float(one.min())) for one in shuffled], [bits(float(one.max())) for one in shuffled]
    return Synergy(
        synergy=-bits(float(omegas.min())),
        redundancy=bits(float(omegas.max())),
        null_synergy=float(np.mean(lows)),
        null_redundancy=float(np.mean(highs)),
        null_synergy_high=max(lows),
        null_redundancy_high=max(highs),
        synergy_clusters=tuple(map(int, flat[int(omegas.argmin())])),
        redundancy_clusters=tuple(map(int, flat[int(omegas.argmax())])),
        clusters=count,
        neurons=neurons,
        rows=rows,
        shuffles=shuffles,
    )


def neuron_clusters(activations: Float[np.ndarray, "rows neurons"], clusters: int = 10) -> Int[np.ndarray, "neurons"]:
    """A cluster from 0 up for each neuron: Ward's agglomeration of their activations over the rows."""
    from sklearn.cluster import AgglomerativeClustering

    activations = _matrix(activations)
    if activations.shape[1] <= clusters:
        return np.arange(activations.shape[1])
    return AgglomerativeClustering(n_clusters=clusters).fit_predict(activations.T)


def cluster_means(activations: Float[np.ndarray, "rows neurons"], labels: Int[np.ndarray, "neurons"]) -> Rows:
    """Mean activation of each cluster's neurons."""
    activations, labels = _matrix(activations), np.asarray(labels)
    return np.stack([activations[:, labels == one].mean(axis=1) for one in np.unique(labels)], axis=1)


def _multiplets(count: int, largest: int) -> list[Int[np.ndarray, "multiplets size"]]:
    """All sets of 2 to `largest` of `count` variables, one array a size."""
    return [np.array(list(combinations(range(count), size))) for size in range(2, largest + 1)]


def _omegas(correlation: np.ndarray, members: Sequence[np.ndarray], rows: int) -> np.ndarray:
    """Ω less its bias of each multiplet, nats, in the order of `members`."""
    found = []
    for groups in members:
        blocks = correlation[groups[:, :, None], groups[:, None, :]]
        found.append(_omega(blocks) - _bias(groups.shape[1], rows))
    return np.concatenate(found)


def _omega(correlations: Float[np.ndarray, "sets k k"]) -> Float[np.ndarray, "sets"]:
    """Ω in nats of each Gaussian with unit variances: H(Z without Z_j) = H(Z) + ½ log (R⁻¹)_jj + constant."""
    diagonals = np.diagonal(np.linalg.inv(correlations), axis1=-2, axis2=-1)
    return -np.linalg.slogdet(correlations)[1] - 0.5 * np.log(diagonals).sum(axis=-1)


def _bias(variables: int, rows: int) -> float:
    """E Ω̂ − Ω in nats for Gaussian rows, from E log |S| of a Wishart matrix of rows − 1 degrees of freedom.

    H(k) below is what a k-variable entropy carries beyond a constant times k, and such constants cancel in Ω.
    """
    terms = 0.5 * digamma((rows - np.arange(1, variables + 1)) / 2)
    whole, without, single = terms.sum(), terms[:-1].sum(), terms[0]
    return float((variables - 2) * whole + variables * (single - without))


def _normal_scores(values: Rows) -> Rows:
    """Normal quantiles of the ranks over rows + 1, ties at their mean rank."""
    return ndtri(rankdata(values, axis=0) / (len(values) + 1))


def _correlation(scores: Rows) -> np.ndarray:
    return np.corrcoef(scores, rowvar=False)


def _matrix(activations: np.ndarray) -> np.ndarray:
    activations = np.asarray(activations, dtype=np.float64)
    if activations.ndim != 2 or not activations.size or not np.isfinite(activations).all():
        raise ValueError(
            f"activations need one finite row an input and one column a variable, and have shape {activations.shape}"
            f" with {np.count_nonzero(~np.isfinite(activations))} values that are not finite; give rows × variables."
        )
    return activations


def _checked(activations: np.ndarray) -> np.ndarray:
    activations = _matrix(activations)
    rows, variables = activations.shape
    constant = np.flatnonzero(np.ptp(activations, axis=0) == 0)
    if variables < 2 or rows <= variables + 1 or len(constant):
        raise ValueError(
            f"Ω needs 2 variables or more, at least 2 rows more than variables and no constant variable, got "
            f"{variables} variables, {rows} rows and {len(constant)} constant ones; drop variables or take more rows."
        )
    return activations


def _refusal(means: np.ndarray) -> str | None:
    """Why these clusters have no Ω, in a sentence, or None."""
    rows, count = means.shape
    if count < 3:
        return f"{count} clusters of neurons that vary are left, and Ω of fewer than 3 is 0 whatever they do"
    if rows <= count + 1:
        return f"{rows} rows are too few for {count} clusters; {count + 2} are the least"
    constant = np.count_nonzero(np.ptp(means, axis=0) == 0)
    if constant:
        return f"{constant} cluster means are constant"
    least = float(np.linalg.eigvalsh(_correlation(_normal_scores(means)))[0])
    return f"the {count} clusters determine each other (least eigenvalue {least:.1g})" if least < _COLLINEAR else None
