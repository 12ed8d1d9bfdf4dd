"""The estimators beside the soft one, by the names that a YAML file gives them.

Each is made by `OTHER_ESTIMATORS[name](dim=…, seed=…)` and answers to update, merge and estimate as in `interface`.
A study that uses several fills one `Reservoir` and passes it to all as `reservoir`, so that rows are kept once.
"""

from collections.abc import Callable

from infocomp.estimators.bins import KMeansInformation
from infocomp.estimators.gaussian import GaussianInformation, GaussianPairInformation
from infocomp.estimators.infonce import InfoNceInformation
from infocomp.estimators.matrix_renyi import RenyiInformation
from infocomp.estimators.neighbours import KsgInformation, RossInformation
from infocomp.estimators.sampled import SampledEstimator

# labels against rows
OTHER_ESTIMATORS: dict[str, Callable[..., SampledEstimator]] = {
    "kmeans": KMeansInformation,
    "ross": RossInformation,
    "renyi": RenyiInformation,
    "gaussian": GaussianInformation,
    "infonce": InfoNceInformation,
}

# two streams of rows: update(rows, others, documents)
PAIR_ESTIMATORS: dict[str, Callable[..., KsgInformation | GaussianPairInformation]] = {
    "ksg": KsgInformation,
    "gaussian_pair": GaussianPairInformation,
}
