"""The preprocessor that turns images and captions into a model's inputs.

Training, evaluation and export share it, and every checkpoint stores it.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from vlp_jax.config.tree import to_tree
from vlp_jax.data.images.boxes import BoxesConfig, boxes_of
from vlp_jax.data.images.decoding import convert_array, convert_image, decode
from vlp_jax.data.images.preprocessing import (
    ImagesConfig,
    evaluation_pixels,
    evaluation_view,
    normalise,
)
from vlp_jax.data.samples import Reason, Sample, SampleError
from vlp_jax.data.sources.local_files import NotRegularError, open_regular
from vlp_jax.data.text.dependency_parses import DependenciesConfig, word_edges
from vlp_jax.data.text.tokenizer import TextConfig, Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

Picture = Image.Image | np.ndarray | bytes | str | os.PathLike


@dataclasses.dataclass(frozen=True)
class Preprocessor:
    """Evaluation's preprocessing of images and captions.

    `preprocess(images=[...], texts=[...])` returns the arguments of `embed` by name: image [B, H,
    W, 3] float32, text [B, L] int32 and text_mask [B, L] bool, each only where its input was given.

    Attributes:
      image_size: height and width of the pixels.
      images: image preprocessing options.
      tokenizer: the tokenizer of the captions.
      boxes: where samples have the regions of their images; None: boxes are not used.
      dependencies: where samples have the parses of their captions; None: parses are not used.
    """

    image_size: int
    images: ImagesConfig
    tokenizer: Tokenizer
    boxes: BoxesConfig | None = None
    dependencies: DependenciesConfig | None = None

    def __call__(
        self,
        images: Picture | Sequence[Picture] | None = None,
        texts: str | Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """The model inputs of images, texts or both.

        Args:
          images: Pillow images, arrays (see `pixel_modes.from_array`), encoded bytes, or paths. One
            item, or an array [H, W] or [H, W, 1 to 4], makes a batch of one. The Exif orientation
            of a Pillow image counts as that of its file does.
          texts: one text or several.

        Returns: as in the class docstring.

        Raises:
          DataError: naming an image that cannot be read.
        """
        arrays = {}
        if images is not None:
            single = isinstance(
                images, (Image.Image, bytes, bytearray, memoryview, str, os.PathLike)
            ) or (
                isinstance(images, np.ndarray)
                and (images.ndim == 2 or images.ndim == 3 and images.shape[2] <= 4)
            )
            pictures = cast(Sequence[Picture], [images] if single else images)
            pixels = [self.pixels(picture) for picture in pictures]
            stacked = (
                np.stack(pixels)
                if pixels
                else np.zeros((0, self.image_size, self.image_size, 3), np.uint8)
            )
            arrays["image"] = normalise(stacked, self.images.mean, self.images.std)
        if texts is not None:
            ids, mask, _ = self.tokenizer([texts] if isinstance(texts, str) else texts)
            arrays |= {"text": ids, "text_mask": mask}
        return arrays

    def pixels(self, picture: Picture, key: str | None = None) -> np.ndarray:
        """Pixels of one image, [H, W, 3] uint8. `key` names it in errors."""
        return evaluation_pixels(self.opened(picture, key), self.image_size, self.images)

    def picture_of(self, sample: Sample, key: str) -> dict[str, np.ndarray]:
        """The image arrays of a sample: `image`, its pixels, and `boxes` where they are used (see
        `boxes_of`).

        Args:
          sample: the sample.
          key: its name in errors.
        """
        image = self.opened(sample.image, key)
        arrays = {"image": evaluation_pixels(image, self.image_size, self.images)}
        if self.boxes is not None:
            arrays["boxes"] = boxes_of(
                key,
                sample.metadata,
                self.boxes,
                evaluation_view(image, self.image_size, self.images),
            )
        return arrays

    def words_of(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """The text arrays of B rows.

        Args:
          rows: mappings with `text` and, where dependencies are used, `parse` (see
            `dependency_parses.parses_in`).

        Returns: arrays by name.
          text: [B, L], int32, token ids.
          text_mask: [B, L], bool, padding mask.
          truncated: [B], bool, whether the text was cut.
          word_edges: [B, L, L], bool, where dependencies are used.
        """
        ids, mask, truncated = self.tokenizer([row["text"] for row in rows])
        words = {"text": ids, "text_mask": mask, "truncated": truncated}
        if self.dependencies is not None:
            start, end, _ = self.tokenizer.special_ids
            in_words = mask & ~np.isin(ids, [*start, *end])
            words["word_edges"] = word_edges(
                [row["parse"] for row in rows], self.tokenizer.word_start(ids), in_words
            )
        return words

    def opened(self, picture: Picture, key: str | None) -> Image.Image:
        """One image, of mode RGB or RGBA.

        Raises:
          SampleError: if the path cannot be read or is not a regular file, or if the image cannot
            be decoded.
        """
        if isinstance(picture, (str, os.PathLike)):
            key = key or os.fspath(picture)
            try:
                with open(open_regular(os.fspath(picture))[0], "rb") as file:
                    picture = file.read()
            except NotRegularError as error:
                raise SampleError(
                    Reason.FORBIDDEN_PATH, key, f"image is {error.what}, not a file"
                ) from error
            except OSError as error:
                raise SampleError(
                    Reason.MISSING_IMAGE, key, f"image cannot be read: {error.strerror}"
                ) from error
        key, cap = key or "image", self.images.maximum_pixels
        if isinstance(picture, (bytes, bytearray, memoryview)):
            return decode(bytes(picture), key, cap)
        return (
            convert_array(picture, key, cap)
            if isinstance(picture, np.ndarray)
            else convert_image(picture, key, cap)
        )

    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs, tokenizer included."""
        return {
            "image_size": self.image_size,
            "images": to_tree(self.images),
            "text": to_tree(self.tokenizer.spec),
            "length": self.tokenizer.length,
            "tokenizer": self.tokenizer.definition,
            "boxes": to_tree(self.boxes),
            "dependencies": to_tree(self.dependencies),
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Preprocessor":
        """The preprocessor that `to_json` described."""
        parts: Iterator[dict[str, Any]] = (
            {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in tree[part].items()
            }
            for part in ("images", "text")
        )
        images, text = parts
        # older checkpoints lack them
        boxes, dependencies = tree.get("boxes"), tree.get("dependencies")
        return cls(
            tree["image_size"],
            ImagesConfig(**images),
            Tokenizer(tree["tokenizer"], TextConfig(**text), tree["length"]),
            boxes and BoxesConfig(**boxes),
            dependencies and DependenciesConfig(**dependencies),
        )

    @classmethod
    def from_config(cls, config: "Experiment") -> "Preprocessor":
        """The preprocessor of an experiment.

        Raises:
          ConfigError: as `load_tokenizer`; if the tokenizer lacks what an objective needs.
        """
        text = config.model.text
        tokenizer = load_tokenizer(config.data.text, text.length, text.vocab_size)
        if config.data.dependencies is not None:
            # looked up now, so that a vocabulary without marks fails before the first batch
            tokenizer.word_marks  # noqa: B018
        for name, objective in config.objectives.items():
            objective.check_tokenizer(f"objectives.{name}", tokenizer, config)
        return cls(
            config.model.image.image_size,
            config.data.images,
            tokenizer,
            config.data.boxes,
            config.data.dependencies,
        )
