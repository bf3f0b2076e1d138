"""ViLT by transformers, tiny: masked words' logits, loss and gradient, and whether pairs belong
together.

pip install torch==2.14.1 transformers==5.24.0
PYTHONPATH=tests/helpers python tests/golden/make_vilt.py   # writes vilt.npz beside itself

transformers gives a pair's log-odds (ViltForImageAndTextRetrieval) and no loss for it, which is
torch's here. Patches are shuffled in every call, so that no output of theirs is kept.
"""

import json
import pathlib

import numpy as np
import torch
from torch_weights import fill
from transformers import ViltConfig, ViltForImageAndTextRetrieval, ViltForMaskedLM

SIZE = dict(
    vocab_size=50,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=9,
    image_size=12,
    patch_size=4,
)
MASK = 49


def main() -> None:
    torch.manual_seed(0)
    config = ViltConfig(**SIZE, hidden_act="gelu", layer_norm_eps=1e-12)
    words, pairs = ViltForMaskedLM(config), ViltForImageAndTextRetrieval(config)
    shapes = json.loads(fill(words)) | json.loads(fill(pairs))
    rng = np.random.default_rng(0)
    image = rng.normal(size=(4, 12, 12, 3)).astype(np.float32)
    mask = np.arange(9) < np.array([9, 5, 2, 7])[:, None]
    ids, labels = np.where(mask, rng.integers(1, MASK, mask.shape), 0), np.array([1, 0, 0, 1])
    chosen = np.zeros_like(mask)
    chosen[[0, 0, 1, 3, 3], [2, 5, 3, 1, 6]] = True
    masked = np.where(chosen, MASK, ids)
    pixels, attended = (
        torch.from_numpy(image.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(mask.astype(np.int64)),
    )
    told = words(
        torch.from_numpy(masked),
        attended,
        pixel_values=pixels,
        labels=torch.from_numpy(np.where(chosen, ids, -100)),
    )
    told.loss.backward()
    odds = pairs(torch.from_numpy(ids), attended, pixel_values=pixels).logits[:, 0]
    matching = torch.nn.functional.binary_cross_entropy_with_logits(
        odds, torch.from_numpy(labels.astype(np.float32))
    )
    np.savez_compressed(
        pathlib.Path(__file__).with_name("vilt.npz"),
        shapes=json.dumps(shapes),
        image=image,
        text=ids.astype(np.int32),
        text_mask=mask,
        masked=masked.astype(np.int32),
        chosen=chosen,
        labels=labels,
        loss=told.loss.detach(),
        logits=told.logits.detach(),
        odds=odds.detach(),
        matching_loss=matching.detach(),
        gradient=words.vilt.embeddings.patch_embeddings.projection.weight.grad,
    )
    print(told.loss.item(), matching.item(), odds)


if __name__ == "__main__":
    main()
