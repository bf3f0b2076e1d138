"""Zero-shot segmentation on patches made by hand, its masks, and the composed scenes."""

import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from vlp_jax.config import load_config
from vlp_jax.data.images.masks import read_mask, visible_mask
from vlp_jax.data.images.preprocessing import ImagesConfig, evaluation_pixels, evaluation_view
from vlp_jax.data.sources.embedded_scenes import png
from vlp_jax.data.sources.registry import open_source
from vlp_jax.evaluators.segmentation import (
    SEGMENTATION_METRICS,
    SegmentationTaskConfig,
    segmentation,
)
from vlp_jax.metrics.segmentation import segmentation_scores

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/classification_metrics.json"
AXES = np.eye(3)


def test_patches_are_classified_by_the_nearest_text_and_pixels_without_a_class_not_counted():
    patches = AXES[[[0, 1], [0, 0]]]  # [2, 2, 3]: the upper right patch is of class 1
    mask = np.kron([[0, 1], [0, 2]], np.ones((4, 4), int))
    mask[0, 0] = 255
    found = segmentation([patches[None]], AXES, iter([mask]))
    assert {*found} == {*SEGMENTATION_METRICS}
    assert found["segmentation_images"] == 1 and found["segmentation_classes"] == 3
    # bilinear weights are products, so the pixel at the inner corner is of the other three patches
    assert found["segmentation_pixel_accuracy"] == pytest.approx(46 / 63)
    assert found["segmentation_mean_iou"] == pytest.approx((31 / 48 + 15 / 16 + 0) / 3)
    assert found["segmentation_majority"] == pytest.approx(31 / 63)
    assert found["segmentation_majority_mean_iou"] == pytest.approx((31 / 63 + 0 + 0) / 3)
    with pytest.raises(ValueError, match="not finite"):
        segmentation([np.full_like(patches, np.nan)[None]], AXES, iter([mask]))
    with pytest.raises(ValueError, match="no pixel of any mask has a class"):
        segmentation([patches[None]], AXES, iter([np.full((8, 8), 255)]))


def test_mean_iou_is_that_of_precision_and_recall():
    """1 / IoU = 1 / precision + 1 / recall - 1, with scikit-learn's precision and recall."""
    for case in json.loads(GOLDEN.read_text()):
        precision, recall = np.array(case["precision"]), np.array(case["recall"])
        confusion = np.array(case["confusion"])
        occurs = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
        with np.errstate(divide="ignore"):
            each = 1 / (1 / precision + 1 / recall - 1)
        assert segmentation_scores(confusion).mean_iou == pytest.approx(
            each[occurs].mean(), abs=1e-12
        )


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (32, 32)])
def test_a_mask_is_seen_as_its_image_is(resize, shape):
    """An image that is its own mask, in halves."""
    mask = np.zeros(shape[::-1], int)
    mask[: shape[1] // 2, : shape[0] // 2] = 1
    picture = Image.fromarray(np.repeat((200 * mask[..., None]).astype(np.uint8), 3, axis=2))
    spec = ImagesConfig(resize=resize, background=(90, 90, 90))
    seen = visible_mask(mask, evaluation_view(picture, 16, spec), 16, outside=-1)
    pixels = evaluation_pixels(picture, 16, spec)[..., 0]
    expected = np.where(pixels == 90, -1, pixels > 100)
    assert (seen == expected).mean() > 0.9 and {*np.unique(seen)} >= {0, 1}
    assert ((seen == -1).any()) == (resize == "letterbox" and shape[0] != shape[1])


def test_masks_are_image_files_with_one_channel_or_rows_of_numbers():
    palette = Image.fromarray(np.array([[0, 3], [255, 1]], np.uint8)).convert("P")
    palette.putdata([0, 3, 255, 1])
    assert read_mask(png(palette)).tolist() == [[0, 3], [255, 1]]
    assert read_mask([[0, 1]]).tolist() == [[0, 1]]
    for wrong in (b"", png(Image.new("RGB", (2, 2))), [[0], [1, 2]], [[0.5]], "text", []):
        assert read_mask(wrong) is None


def test_a_scene_has_four_emoji_and_their_masks():
    scenes, emoji = (
        open_source("embedded:emoji_scenes/val_concept"),
        open_source("embedded:emoji/val_concept"),
    )
    assert len(scenes) == len(emoji) // 4
    sample = scenes[0]
    mask, picture = read_mask(sample.metadata["mask"]), Image.open(io.BytesIO(sample.image))
    assert mask.shape == picture.size == (128, 128)
    names = scenes.class_names["mask"]
    for place, group in enumerate(sample.metadata["classes"]):
        quarter = mask[64 * (place // 2) :][:64, 64 * (place % 2) :][:, :64]
        assert {*np.unique(quarter)} <= {names.index(group), 255}
    background = np.asarray(picture)[mask == 255]
    assert (background > 120).mean() > 0.95  # white, but for half-transparent borders
    assert scenes.fingerprint() != emoji.fingerprint()


def test_towers_whose_tokens_cannot_be_projected_are_refused():
    task = SegmentationTaskConfig()
    assert task.lacks(load_config("configs/clip_emoji.py")) is None
    assert task.lacks(load_config("configs/clip_emoji_resnet.py")) is None
    for name in ("siglip_b16", "clip_rn50"):
        assert "an image tower whose pooled vector is" in task.lacks(
            load_config(f"configs/{name}.py")
        )
