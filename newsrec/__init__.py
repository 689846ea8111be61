"""A lightweight news recommender: recall, point-in-time features, LambdaRank, honest evaluation, a served bundle."""

__version__ = "0.1.0"
