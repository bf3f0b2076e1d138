"""Perplexity, modality gap, alignment and uniformity, against their definitions in float64."""

import numpy as np
import pytest

from vlp_jax.evaluators import embedding_geometry
from vlp_jax.evaluators.embedding_geometry import GEOMETRY_METRICS, geometry, uniformity
from vlp_jax.evaluators.perplexity import PERPLEXITY_METRICS, perplexity


def sphere(seed, count=70, width=5):
    rows = np.random.default_rng(seed).standard_normal((count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def papers_uniformity(x, t=2):
    """`torch.pdist(x, p=2).pow(2).mul(-t).exp().mean().log()` of Wang and Isola 2020."""
    pairs = [np.exp(-t * np.square(x[i] - x[j]).sum()) for i in range(len(x)) for j in range(i)]
    return np.log(np.mean(pairs))


@pytest.mark.parametrize("rows", [1024, 16])
def test_measures_are_those_of_the_papers(rows, monkeypatch):
    monkeypatch.setattr(embedding_geometry, "ROWS", rows)
    x, y = sphere(0), sphere(1)
    found = geometry(x, y)
    assert {*found} == {*GEOMETRY_METRICS}
    assert found == {
        "modality_gap": pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)), abs=1e-12),
        "alignment": pytest.approx(np.mean((np.linalg.norm(x - y, axis=1)) ** 2), abs=1e-12),
        "uniformity_image": pytest.approx(papers_uniformity(x), abs=1e-12),
        "uniformity_text": pytest.approx(papers_uniformity(y), abs=1e-12),
    }


def test_a_collapsed_model_is_not_uniform_and_aligned():
    same = np.tile(sphere(2, 1), (6, 1))
    found = geometry(same, same)
    assert [found[name] for name in GEOMETRY_METRICS] == pytest.approx([0.0] * 4, abs=1e-12)
    assert uniformity(same[:1]) == 0.0
    with pytest.raises(ValueError, match="not finite"):
        geometry(same * np.nan, same)


def test_perplexity_is_the_number_of_equally_likely_tokens():
    counts = np.array([4, 6])
    found = perplexity(counts * np.log(50.0), counts, ["a red heart", "two"])
    assert {*found} == {*PERPLEXITY_METRICS}
    assert found["perplexity_token"] == pytest.approx(50.0)
    assert found["perplexity_word"] == pytest.approx(50.0 ** (10 / 4))
    with pytest.raises(ValueError, match="not finite"):
        perplexity(np.array([np.inf]), np.array([1]), ["a"])
