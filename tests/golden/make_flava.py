"""Weights, inputs and losses of transformers' FlavaForPreTraining, tiny and random, as our modules
must reproduce them.

pip install torch==2.14.1 transformers==5.24.0 safetensors numpy
python tests/golden/make_flava.py

Writes `flava_tiny.safetensors` and `flava_tiny.npz` beside itself. A batch of both kinds has no MIM
and no MLM, and one with wrong pairs shows only the right ones to its other losses: hence four
forward passes.
"""

import pathlib
import re

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import FlavaConfig, FlavaForPreTraining

FOLDER = pathlib.Path(__file__).parent
CODES, START, END, PADDING, MASK = 23, 36, 37, 38, 39
IMAGE = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=32,
    patch_size=8,
    vocab_size=CODES,
)
TEXT = dict(
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=2,
    vocab_size=40,
    max_position_embeddings=10,
    pad_token_id=PADDING,
)
BOTH = dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4)
ROWS, HIDDEN = 4, 6


def build() -> FlavaForPreTraining:
    """The model, without its codebook, and with every parameter moved from the zero or one that
    would hide it. All widths are the same, as transformers' heads take for granted.
    """
    torch.manual_seed(0)
    config = FlavaConfig(
        image_config=IMAGE,
        text_config=TEXT,
        multimodal_config=BOTH,
        projection_dim=20,
        hidden_size=32,
        init_codebook=False,
    )
    model = FlavaForPreTraining(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "flava.logit_scale":
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Pictures and texts, whole and masked; the codes of all patches and the places of the hidden
    ones."""
    text, lengths = rng.integers(0, START, (ROWS, 10)), np.array([[10], [6], [3], [8]])
    text[:, 0] = START
    np.put_along_axis(text, lengths - 1, END, axis=1)
    mask = np.arange(10) < lengths
    text = np.where(mask, text, PADDING)
    chosen = mask & (rng.random(text.shape) < 0.4) & (text < START)
    chosen[2, 1] = True
    masked = np.where(chosen & (rng.random(text.shape) < 0.8), MASK, text)
    places = np.stack([rng.permutation(16)[:HIDDEN] for _ in range(ROWS)])
    return dict(
        image=rng.normal(size=(ROWS, 32, 32, 3)).astype(np.float32),
        text=text.astype(np.int32),
        text_mask=mask,
        chosen=chosen,
        masked_text=masked.astype(np.int32),
        places=places.astype(np.int32),
        codes=rng.integers(0, CODES, (ROWS, 16)).astype(np.int32),
        belongs=np.array([1, 0, 1, 0]),
    )


def main() -> None:
    model, arrays = build(), inputs(np.random.default_rng(0))
    hidden = np.zeros((ROWS, 16), bool)
    np.put_along_axis(hidden, arrays["places"], True, axis=1)
    labels = np.where(arrays["chosen"], arrays["text"], -100)

    def of_image():
        return dict(
            pixel_values=torch.from_numpy(arrays["image"]).permute(0, 3, 1, 2),
            bool_masked_pos=torch.from_numpy(hidden),
            mim_labels=torch.from_numpy(arrays["codes"]).long().clone(),
        )

    def of_text():
        given = dict(
            input_ids=arrays["text"],
            input_ids_masked=arrays["masked_text"],
            attention_mask=arrays["text_mask"],
            mlm_labels=labels,
        )
        return {name: torch.from_numpy(value).long() for name, value in given.items()}

    with torch.no_grad():
        image, text, both = (
            model(**given).loss_info for given in (of_image(), of_text(), of_image() | of_text())
        )
        pairs = model(**of_image(), **of_text(), itm_labels=torch.from_numpy(arrays["belongs"]))
    arrays |= dict(
        mim=image.mim,
        mlm=text.mlm,
        global_contrastive=both.global_contrastive,
        mmm_image=both.mmm_image,
        mmm_text=both.mmm_text,
        itm=pairs.loss_info.itm,
        itm_logits=pairs.itm_logits,
    )
    np.savez_compressed(
        FOLDER / "flava_tiny.npz", **{key: np.asarray(value) for key, value in arrays.items()}
    )
    # poolers that no loss reads, and second names of biases
    unused = re.compile(r"flava\.\w+_model\.pooler|\w+_head\.bias")
    weights = {
        name: value.contiguous().clone()
        for name, value in model.state_dict().items()
        if not unused.match(name)
    }
    save_file(weights, FOLDER / "flava_tiny.safetensors")
    (FOLDER / "flava_tiny.safetensors").chmod(0o644)
    print(
        {
            key: float(arrays[key])
            for key in ("mim", "mlm", "global_contrastive", "mmm_image", "mmm_text", "itm")
        }
    )


if __name__ == "__main__":
    main()
