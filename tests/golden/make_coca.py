"""CoCa's two losses by open_clip's CoCaLoss, of drawn numbers and of its text tower with a class
token behind the text, tiny.

pip install torch==2.14.1 open_clip_torch==3.3.0
PYTHONPATH=tests/helpers python tests/golden/make_coca.py   # writes coca.npz beside itself

The text tower is asked for its correct mask of padding; the one by which open_clip's published
CoCas were trained is one place off. open_clip's decoder and poolers are others than the paper's (an
MLP behind each of both attentions, norms before the queries and keys of a pooler), so that none of
theirs is kept.
"""

import pathlib

import numpy as np
import torch
from open_clip.loss import CoCaLoss
from open_clip.transformer import TextTransformer
from torch_weights import fill

SIZE = dict(context_length=8, vocab_size=50, width=24, heads=3, layers=2, output_dim=20)
LENGTHS = np.array([8, 5, 2, 7])
CONTRASTIVE_WEIGHT, CAPTION_WEIGHT, SCALE = 1.0, 2.0, 14.3


def main() -> None:
    rng = np.random.default_rng(0)
    tower = TextTransformer(
        **SIZE, embed_cls=True, output_tokens=True, correct_cls_mask=True, pad_id=0
    )
    shapes = fill(tower)
    mask = np.arange(8) < LENGTHS[:, None]
    ids = np.where(mask, rng.integers(1, 50, mask.shape), 0)
    text = torch.from_numpy(ids)
    pooled, tokens = tower(text)
    embeddings = [
        torch.nn.functional.normalize(x, dim=-1)
        for x in (torch.from_numpy(rng.normal(size=(4, 20)).astype(np.float32)), pooled)
    ]
    logits = torch.from_numpy(2 * rng.normal(size=(4, 7, 50)).astype(np.float32)).requires_grad_()
    losses = CoCaLoss(CAPTION_WEIGHT, CONTRASTIVE_WEIGHT, pad_id=0)(
        *embeddings, logits, text[:, 1:], torch.tensor(SCALE)
    )
    sum(losses).backward()
    found = dict(
        pooled=pooled,
        tokens=tokens,
        image_embedding=embeddings[0],
        text_embedding=embeddings[1],
        logits=logits,
        contrastive_loss=losses[0],
        caption_loss=losses[1],
    )
    np.savez_compressed(
        pathlib.Path(__file__).with_name("coca.npz"),
        shapes=shapes,
        text=ids.astype(np.int32),
        text_mask=mask,
        gradient=tower.token_embedding.weight.grad,
        logits_gradient=logits.grad,
        **{name: value.detach() for name, value in found.items()},
    )
    print([loss.item() for loss in losses])


if __name__ == "__main__":
    main()
