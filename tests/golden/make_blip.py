"""Weights, inputs and outputs of transformers' BlipForImageTextRetrieval and
BlipForConditionalGeneration, tiny and random; they share the weights that BLIP's pretraining
shares, as our one model must reproduce them.

pip install torch==2.14.1 transformers==5.24.0 safetensors numpy
python tests/golden/make_blip.py

Writes `blip_tiny.safetensors` (what both have stands under `retrieval.` only) and `blip_tiny.npz`
beside itself.
"""

import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

FOLDER = pathlib.Path(__file__).parent
VISION = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=24,
    patch_size=8,
    hidden_act="gelu",
    layer_norm_eps=1e-6,
)
START, END, PADDING, DECODE, ENCODE = 37, 38, 39, 40, 41
TEXT = dict(
    hidden_size=24,
    encoder_hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=3,
    vocab_size=42,
    max_position_embeddings=10,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    hidden_dropout_prob=0.0,
    pad_token_id=PADDING,
    bos_token_id=DECODE,
    eos_token_id=END,
    sep_token_id=END,
    label_smoothing=0.1,
)


def perturb(model: torch.nn.Module, seed: int) -> None:
    """Moves every parameter, so that none is left at a zero or a one that would hide it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


def share(retrieval: torch.nn.Module, generation: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gives the decoder all of the encoder's weights but self-attention's.

    Returns: those that it does not share.
    """
    shared = {
        f"text_decoder.bert.{name}": value
        for name, value in retrieval.text_encoder.state_dict().items()
        if ".attention." not in name
    }
    shared |= {
        f"vision_model.{name}": value for name, value in retrieval.vision_model.state_dict().items()
    }
    generation.load_state_dict(shared, strict=False)
    assert set(shared) <= set(generation.state_dict())
    tied = {
        "text_decoder.cls.predictions.decoder.weight",
        "text_decoder.cls.predictions.decoder.bias",
    }
    return {
        name: value
        for name, value in generation.state_dict().items()
        if name not in {*shared, *tied}
    }


def main() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    config = BlipConfig(
        vision_config=VISION, text_config=TEXT, image_text_hidden_size=20, projection_dim=20
    )
    retrieval, generation = (
        kind._from_config(config, attn_implementation="eager").eval()
        for kind in (BlipForImageTextRetrieval, BlipForConditionalGeneration)
    )
    for seed, model in enumerate((retrieval, generation)):
        perturb(model, seed)
    own = share(retrieval, generation)
    pixels = torch.from_numpy(rng.normal(size=(3, 3, 24, 24)).astype(np.float32))
    ids, lengths = rng.integers(0, START, (3, 10)), np.array([[10], [6], [3]])
    ids[:, 0] = START
    np.put_along_axis(ids, lengths - 1, END, axis=1)
    mask = np.arange(10) < lengths
    ids, mask = (
        torch.from_numpy(np.where(mask, ids, PADDING)),
        torch.from_numpy(mask.astype(np.int64)),
    )
    grounded = ids.clone()
    grounded[:, 0] = ENCODE
    written = ids.clone()
    written[:, 0] = DECODE
    with torch.no_grad():
        matching = retrieval(grounded, pixels, attention_mask=mask)
        cosines = retrieval(ids, pixels, use_itm_head=False, attention_mask=mask)
        captioning = generation(
            pixels, written, attention_mask=mask, labels=written.masked_fill(mask == 0, -100)
        )
    arrays = dict(
        image=pixels.permute(0, 2, 3, 1),
        text=ids.int(),
        text_mask=mask.bool(),
        image_tokens=matching.last_hidden_state,
        matching_logits=matching.itm_score,
        grounded_tokens=matching.question_embeds,
        cosines=cosines.itm_score,
        next_logits=captioning.logits,
        loss=captioning.loss,
    )
    np.savez_compressed(
        FOLDER / "blip_tiny.npz",
        **{key: value.contiguous().numpy() for key, value in arrays.items()},
    )
    weights = {f"retrieval.{name}": value for name, value in retrieval.state_dict().items()}
    weights |= {f"generation.{name}": value for name, value in own.items()}
    save_file(
        {name: value.clone().contiguous() for name, value in weights.items()},
        FOLDER / "blip_tiny.safetensors",
    )
    (FOLDER / "blip_tiny.safetensors").chmod(0o644)
    print({key: tuple(value.shape) for key, value in arrays.items()}, float(captioning.loss))


if __name__ == "__main__":
    main()
