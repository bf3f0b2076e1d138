"""The loss of a language model by transformers' GPT2LMHeadModel, tiny: its logits, loss, and the
loss's gradient.

pip install torch==2.14.1 transformers==5.24.0
PYTHONPATH=tests/helpers python tests/golden/make_gpt2.py   # writes gpt2.npz beside itself
"""

import pathlib

import numpy as np
import torch
from torch_weights import fill
from transformers import GPT2Config, GPT2LMHeadModel

SIZE = dict(
    vocab_size=50,
    n_embd=24,
    n_layer=2,
    n_head=3,
    n_inner=40,
    n_positions=9,
    bos_token_id=0,
    eos_token_id=0,
)
LENGTHS = np.array([4, 9, 6, 3, 2, 5, 5, 8])
PADDING = 49


def main() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel._from_config(GPT2Config(**SIZE), attn_implementation="eager")
    shapes = fill(model)
    mask = np.arange(9) < LENGTHS[:, None]
    ids = np.where(mask, np.random.default_rng(0).integers(0, PADDING, mask.shape), PADDING)
    labels = np.where(mask, ids, -100)
    output = model(
        torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask.astype(np.int64)),
        labels=torch.from_numpy(labels),
    )
    output.loss.backward()
    np.savez_compressed(
        pathlib.Path(__file__).with_name("gpt2.npz"),
        shapes=shapes,
        text=ids.astype(np.int32),
        text_mask=mask,
        loss=output.loss.detach(),
        logits=output.logits.detach(),
        gradient=model.transformer.wte.weight.grad,
    )
    print(output.loss.item(), np.log(SIZE["vocab_size"]))


if __name__ == "__main__":
    main()
