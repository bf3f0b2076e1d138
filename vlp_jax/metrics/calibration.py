"""Calibration of predicted probabilities."""

import numpy as np

BINS = 15


def expected_calibration_error(
    probabilities: np.ndarray, right: np.ndarray, bins: int = BINS
) -> float:
    """The mean difference of confidence and accuracy over bins of confidence of equal width,
    weighted by the samples in each (Guo et al. 2017, equation 3).

    Args:
      probabilities: [N], float in [0, 1], confidence in the predicted class.
      right: [N], bool, whether the prediction is correct.
      bins: number of bins; bin m is ((m - 1) / M, m / M], and the first one holds 0.
    """
    place = np.clip(np.ceil(np.asarray(probabilities, np.float64) * bins) - 1, 0, bins - 1)
    place = place.astype(np.int64)
    gaps = np.bincount(place, np.asarray(right, np.float64) - probabilities, minlength=bins)
    return float(np.abs(gaps).sum() / len(place))
