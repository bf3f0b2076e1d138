"""Weights, inputs and outputs of transformers' CLIPModel and SiglipModel, tiny and random, as our
models must reproduce them.

pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
python tests/golden/make_transformers.py

Writes `clip_tiny.safetensors`, `clip_tiny.npz`, `siglip_tiny.safetensors` and `siglip_tiny.npz`
beside itself.
"""

import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

FOLDER = pathlib.Path(__file__).parent
VISION = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=24,
    patch_size=8,
)
TEXT = dict(
    hidden_size=24,
    intermediate_size=56,
    num_hidden_layers=3,
    num_attention_heads=3,
    vocab_size=60,
    max_position_embeddings=10,
)
START, END, PADDING = 57, 58, 59


def perturb(model: torch.nn.Module, seed: int) -> None:
    """Moves every parameter, so that none is left at a zero or a one that would hide it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
            assert parameter.abs().min() > 0


def draw_images(rng: np.random.Generator, rows: int) -> torch.Tensor:
    return torch.from_numpy(
        rng.normal(size=(rows, 3, VISION["image_size"], VISION["image_size"])).astype(np.float32)
    )


def draw_captions(
    rng: np.random.Generator, lengths: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask: a start token, words, an end token, and padding up to the full length.

    `lengths` counts all but padding.
    """
    ids = np.full((len(lengths), TEXT["max_position_embeddings"]), PADDING)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = [START, *rng.integers(0, START, length - 2), END]
    mask = np.arange(ids.shape[1]) < np.array(lengths)[:, None]
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def write(
    name: str,
    model: torch.nn.Module,
    pixels: torch.Tensor,
    ids: torch.Tensor,
    mask: torch.Tensor | None,
) -> None:
    model.eval()
    with torch.no_grad():
        image, text = model.vision_model(pixels), model.text_model(ids, attention_mask=mask)
        output = model(input_ids=ids, pixel_values=pixels, attention_mask=mask)
    arrays = dict(
        image=pixels.permute(0, 2, 3, 1),
        text=ids.int(),
        **({} if mask is None else {"text_mask": mask.bool()}),
        image_tokens=image.last_hidden_state,
        image_pooled=image.pooler_output,
        text_tokens=text.last_hidden_state,
        text_pooled=text.pooler_output,
        image_embedding=output.image_embeds,
        text_embedding=output.text_embeds,
    )
    np.savez_compressed(
        FOLDER / f"{name}.npz", **{key: value.contiguous().numpy() for key, value in arrays.items()}
    )
    weights = {
        key: value.contiguous()
        for key, value in model.state_dict().items()
        if not key.endswith("position_ids")
    }
    save_file(weights, FOLDER / f"{name}.safetensors")
    (FOLDER / f"{name}.safetensors").chmod(0o644)
    print(name, {key: tuple(value.shape) for key, value in arrays.items()})


def main() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    text = dict(TEXT, bos_token_id=START, eos_token_id=END, pad_token_id=PADDING)
    clip = CLIPModel._from_config(
        CLIPConfig(
            vision_config=dict(VISION, hidden_act="quick_gelu", layer_norm_eps=1e-5),
            text_config=dict(text, hidden_act="quick_gelu", layer_norm_eps=1e-5),
            projection_dim=20,
        ),
        attn_implementation="eager",
    )
    perturb(clip, 1)
    write("clip_tiny", clip, draw_images(rng, 3), *draw_captions(rng, (10, 6, 2)))
    siglip = SiglipModel._from_config(
        SiglipConfig(
            vision_config=dict(VISION, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6),
            text_config=dict(
                text,
                hidden_act="gelu_pytorch_tanh",
                layer_norm_eps=1e-6,
                projection_size=VISION["hidden_size"],
            ),
        ),
        attn_implementation="eager",
    )
    perturb(siglip, 2)
    write("siglip_tiny", siglip, draw_images(rng, 3), draw_captions(rng, (10, 6, 2))[0], None)


if __name__ == "__main__":
    main()
