"""The information bottleneck of discrete joints: the bound, its inner curves, and the oracles that check both."""

from infocomp.bottleneck import closed_forms
from infocomp.bottleneck.blahut_arimoto import anneal, solve, solve_at_once
from infocomp.bottleneck.crossfit import CrossFitted, cross_fit, held_out, held_out_information, smoothed
from infocomp.bottleneck.curve import Curve
from infocomp.bottleneck.deterministic import deterministic_y, hard_point, solve_deterministic
from infocomp.bottleneck.envelope import concave_envelope, interpolate, monotone_filter
from infocomp.bottleneck.initial import greedy_merging, k_means
from infocomp.bottleneck.iteration import Limits
from infocomp.bottleneck.joint import Joint
from infocomp.bottleneck.rate_distortion import RateDistortion, rate_distortion
from infocomp.bottleneck.repetition import Repeated, repeat_points
from infocomp.bottleneck.token_channel import TokenChannel, through_token_channel

__all__ = [
    "CrossFitted",
    "Curve",
    "Joint",
    "Limits",
    "RateDistortion",
    "Repeated",
    "TokenChannel",
    "anneal",
    "closed_forms",
    "concave_envelope",
    "cross_fit",
    "deterministic_y",
    "greedy_merging",
    "hard_point",
    "held_out",
    "held_out_information",
    "interpolate",
    "k_means",
    "monotone_filter",
    "rate_distortion",
    "repeat_points",
    "smoothed",
    "solve",
    "solve_at_once",
    "solve_deterministic",
    "through_token_channel",
]
