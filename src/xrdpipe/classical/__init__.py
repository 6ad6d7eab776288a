"""Classical methods to find phases: matched filter, least squares, constrained factorisation.

No network and no training but of the decision: scores of a method become probabilities by a
logistic regression on synthetic patterns.
"""

METHODS = ("matched-filter", "nnls", "nmf")
"""Names in recipes and in ``model.json``."""
