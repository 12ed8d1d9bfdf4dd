"""Where the bottleneck's iterations start: identity, greedy merging, k-means of p(y|x), random encoders.

Each returns an encoder q(t|x), float64, shape [x, t]. `soften` mixes it with the uniform one: a probability of exactly
zero is absorbing in the fixed point, and so a hard encoder could never be left.

Sources: greedy merging is the agglomerative bottleneck of Slonim & Tishby (1999); k-means with KL[p(y|x) ‖ p(y|t)] as
its cost is divisive information-theoretic clustering (Dhillon, Mallela & Kumar 2003, JMLR 3), seeded as k-means++.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from infocomp.bottleneck.joint import Joint
from infocomp.bottleneck.storage import SparseTable, plogp, safe_ratio

SEED_SMOOTHING = 0.9  # share of p(y) in a single row that stands for a cluster
SMOOTHING = 0.8  # share of p(y) in a cluster: unseen pairs cost little, nearly a χ² geometry; by trial on text
ROUNDS = 20
LARGEST_GREEDY = 512


def soften(q: Float[Tensor, "*x t"], share: float) -> Float[Tensor, "*x t"]:
    """(1 − share) q + share / |T|."""
    return q * (1 - share) + share / q.shape[-1]


def identity(joint: Joint, clusters: int) -> Float[Tensor, "x t"]:
    """Each x its own t; needs |T| ≥ |X|."""
    size = joint.sizes[0]
    return torch.eye(size, clusters, dtype=torch.float64, device=joint.p_x.device)


def random_encoder(joint: Joint, clusters: int, seed: int) -> Float[Tensor, "x t"]:
    """Rows from a Dirichlet law with concentration ½: far from uniform, nowhere zero."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(joint.sizes[0], clusters, generator=generator, dtype=torch.float64)
    weight = normal.square() + 1e-6
    return (weight / weight.sum(1, keepdim=True)).to(joint.p_x.device)


def k_means(joint: Joint, clusters: int, seed: int = 0) -> Float[Tensor, "x t"]:
    """Hard clusters of the rows p(y|x), weighted by p(x): a local optimum of I(T; Y) over hard encoders.

    While they are compared, clusters are smoothed with p(y): of 0.01 to 0.9, shares near 0.8 gave the best curves of
    text at every beta (I(T; Y) of 256 hard clusters of a million pairs 2.970 bits at 0.01, 2.978 at 0.1, 3.023 at 0.8).
    """
    labels = _seeded(joint, clusters, torch.Generator().manual_seed(seed))
    for _ in range(ROUNDS):
        found = _nearest(joint, labels, clusters)
        if bool((found == labels).all()):
            break
        labels = found
    return one_hot(labels, clusters).to(torch.float64)


def greedy_merging(joint: Joint, clusters: int) -> Float[Tensor, "x t"]:
    """Start with each x alone and merge, again and again, the two clusters whose merger loses least I(T; Y).

    The loss is (p_i + p_j) JS(p(y|i), p(y|j)) = Σ_y [f(p_iy) + f(p_jy) − f(p_iy + p_jy)] − the same of the totals, with
    f = p log p. For |X| ≤ 512; ValueError above, where k_means is the way.
    """
    size = joint.sizes[0]
    if size > LARGEST_GREEDY:
        raise ValueError(f"greedy merging takes at most {LARGEST_GREEDY} x; there are {size}: use k_means")
    mass = joint.table().to(torch.float64).clone()
    labels = torch.arange(size, device=mass.device)
    alive = torch.ones(size, dtype=torch.bool, device=mass.device)
    cost = torch.stack([_losses(mass, i) for i in range(size)])
    cost.fill_diagonal_(torch.inf)
    for _ in range(size - clusters):
        i, j = divmod(int(cost.argmin()), size)
        mass[i] += mass[j]
        labels[labels == j] = i
        alive[j] = False
        cost[j, :] = cost[:, j] = torch.inf
        fresh = torch.where(alive, _losses(mass, i), torch.inf)
        cost[i, :] = cost[:, i] = fresh
        cost[i, i] = torch.inf
    return one_hot(torch.unique(labels, return_inverse=True)[1], clusters).to(torch.float64)


def _losses(mass: Float[Tensor, "x y"], i: int) -> Float[Tensor, "x"]:
    total = mass.sum(1)
    together = plogp(total + total[i]) - plogp(mass + mass[i]).sum(1)
    return together - plogp(total) + plogp(mass).sum(1) - plogp(total[i]) + plogp(mass[i]).sum()


def _seeded(joint: Joint, clusters: int, generator: torch.Generator) -> Int[Tensor, "x"]:
    """k-means++: each next seed is drawn by p(x) times what x still costs, then each x goes to its best seed."""
    size = joint.sizes[0]
    own = joint.p_x.new_full((size,), torch.inf)
    labels = torch.zeros(size, dtype=torch.long, device=joint.p_x.device)
    best = joint.p_x.new_full((size,), -torch.inf)
    chosen = torch.multinomial(joint.p_x.cpu(), 1, generator=generator)
    for t in range(clusters):
        mass = torch.zeros_like(joint.p_x)[:, None].index_fill_(0, chosen.to(labels.device), 1.0)
        seed = safe_ratio(joint.storage.to_y(mass), (joint.p_x @ mass)[None])
        ratio = (1 - SEED_SMOOTHING) * safe_ratio(seed, joint.p_y[:, None]) + SEED_SMOOTHING
        score = joint.storage.to_x(ratio.log())[:, 0]
        labels = torch.where(score > best, t, labels)
        best = torch.maximum(best, score)
        if t == 0:
            own = _own_score(joint)
        cost = (joint.p_x * (own - best)).clamp_min(0)
        cost[chosen] = 0
        if not float(cost.sum()) > 0:
            cost = joint.p_x
        chosen = torch.multinomial(cost.cpu(), 1, generator=generator)
    return labels


def _own_score(joint: Joint) -> Float[Tensor, "x"]:
    """What each x would score as its own seed, near enough: its KL from p(y)."""
    storage = joint.storage
    if isinstance(storage, SparseTable):
        rows = storage.rows()
        logs = (1 - SEED_SMOOTHING) * safe_ratio(storage.conditional, joint.p_y[storage.columns]) + SEED_SMOOTHING
        return torch.zeros_like(joint.p_x).index_add_(0, rows, storage.conditional * logs.log())
    logs = (1 - SEED_SMOOTHING) * safe_ratio(storage.conditional, joint.p_y[None]) + SEED_SMOOTHING
    return (storage.conditional * logs.log()).sum(1)


def _nearest(joint: Joint, labels: Int[Tensor, "x"], clusters: int) -> Int[Tensor, "x"]:
    """Each x to the cluster of least KL; a cluster left empty takes the x that costs most."""
    hard = one_hot(labels, clusters).to(joint.p_x.dtype)
    p_t = joint.p_x @ hard
    given = safe_ratio(joint.storage.to_y(hard), p_t[None])
    ratio = (1 - SMOOTHING) * safe_ratio(given, joint.p_y[:, None]) + SMOOTHING
    score = joint.storage.to_x(ratio.log_())
    best, found = score.max(1)
    empty = torch.nonzero(torch.bincount(found, minlength=clusters) == 0)[:, 0]
    if len(empty):
        cost = joint.p_x * (_own_score(joint) - best)
        found[torch.topk(cost, len(empty)).indices] = empty
    return found
