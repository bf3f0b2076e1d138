"""Masked language modelling by transformers' BertForMaskedLM, tiny: its tokens, logits and loss,
and the loss's gradient.

pip install torch==2.14.1 transformers==5.24.0
PYTHONPATH=tests/helpers python tests/golden/make_bert.py   # writes bert.npz beside itself
"""

import pathlib

import numpy as np
import torch
from torch_weights import fill
from transformers import BertConfig, BertForMaskedLM

SIZE = dict(
    vocab_size=50,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=9,
    type_vocab_size=2,
)
START, END, PADDING, MASK = 1, 2, 0, 49


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Ids [4, 9] and which of them are real: a start token, words, an end token, padding."""
    rng, lengths = np.random.default_rng(0), np.array([9, 6, 3, 8])
    ids = rng.integers(3, MASK, (4, 9))
    places = np.arange(9)
    ids[:, 0] = START
    ids[places == lengths[:, None] - 1] = END
    mask = places < lengths[:, None]
    return np.where(mask, ids, PADDING), mask


def main() -> None:
    torch.manual_seed(0)
    model = BertForMaskedLM._from_config(
        BertConfig(**SIZE, hidden_act="gelu", layer_norm_eps=1e-12), attn_implementation="eager"
    )
    shapes = fill(model)
    ids, mask = texts()
    chosen = np.zeros_like(mask)
    chosen[[0, 0, 1, 2, 3, 3], [2, 5, 3, 1, 1, 6]] = True
    masked = np.where(chosen, MASK, ids)
    masked[0, 5], masked[3, 6] = 7, ids[3, 6]  # another word, and the word itself
    labels = np.where(chosen, ids, -100)
    output = model(
        torch.from_numpy(masked),
        torch.from_numpy(mask.astype(np.int64)),
        labels=torch.from_numpy(labels),
        output_hidden_states=True,
    )
    output.loss.backward()
    np.savez_compressed(
        pathlib.Path(__file__).with_name("bert.npz"),
        shapes=shapes,
        text=ids.astype(np.int32),
        text_mask=mask,
        masked=masked.astype(np.int32),
        chosen=chosen,
        loss=output.loss.detach(),
        logits=output.logits.detach(),
        tokens=output.hidden_states[-1].detach(),
        gradient=model.bert.embeddings.word_embeddings.weight.grad,
    )
    print(output.loss.item(), np.log(SIZE["vocab_size"]))


if __name__ == "__main__":
    main()
