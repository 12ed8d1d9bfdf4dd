"""Rows of activations to numbers that can be merged; knows tensors, not models."""

from infocomp.estimators.groups import Groups, LabelGroups
from infocomp.estimators.halves import Halves
from infocomp.estimators.interface import Estimate, Estimator
from infocomp.estimators.nulls import paired_rows
from infocomp.estimators.soft_information import SoftInformation

__all__ = ["Estimate", "Estimator", "Groups", "Halves", "LabelGroups", "SoftInformation", "paired_rows"]
