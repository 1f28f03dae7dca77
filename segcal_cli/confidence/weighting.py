"""Weights of cases under covariate shift: given as density ratios, or estimated from label-free features.

Given weights that are the true density ratios keep the guarantee exactly (Tibshirani et al. 2019). Estimated ones are
the odds of a logistic regression that tells calibration from the new batch, and make it approximate.
"""

from __future__ import annotations

import numpy as np

LARGEST_RATIO = 20.0
"""Estimated ratios are clipped to [1/20, 20]: beyond that they are extrapolation."""

FEW = 30.0
"""A smaller effective number of calibration cases is warned about."""


def estimated_weights(calibration: np.ndarray, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the calibration cases and of the batch, from features "case feature".

    Odds of "new" by logistic regression with penalty 1/2 |beta|^2 (none on the intercept), features standardised on
    calibration, L-BFGS from zero; times n / batch, clipped.
    """
    from scipy.optimize import minimize

    spread = calibration.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    x = (np.concatenate([calibration, batch]) - calibration.mean(axis=0)) / scale
    y = np.repeat([0.0, 1.0], [len(calibration), len(batch)])

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ beta[1:] + beta[0]
        value = float(np.logaddexp(0.0, z).sum() - y @ z + 0.5 * beta[1:] @ beta[1:])
        residual = 1.0 / (1.0 + np.exp(-z)) - y
        return value, np.append(residual.sum(), x.T @ residual + beta[1:])

    beta = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    odds = np.exp(np.clip(x @ beta[1:] + beta[0], -50.0, 50.0))
    ratio = np.clip(odds * len(calibration) / len(batch), 1.0 / LARGEST_RATIO, LARGEST_RATIO)
    return ratio[: len(calibration)], ratio[len(calibration) :]
