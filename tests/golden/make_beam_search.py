"""What beam search of transformers' `generate` finds for a model whose logits are looked up by its
last three tokens.

pip install torch==2.13.0 transformers==5.24.0
python tests/golden/make_beam_search.py   # writes beam_search.npz beside itself
"""

import itertools
import pathlib

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

V, END, PADDING, START, ROWS = 5, 1, 0, 2, 6
BEAMS, LENGTHS = (2, 3, 5), (4, 12)
PENALTIES, EARLY = (-0.5, 0.0, 0.6, 1.0, 2.0), (False, True, "never")


class Table(PreTrainedModel, GenerationMixin):
    """Logits [V] of the next token from `tables` [ROWS, V + 1, V + 1, V + 1, V], the row being that
    of the first token."""

    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig, tables: torch.Tensor):
        super().__init__(config)
        self.tables = torch.nn.Parameter(tables)

    def forward(self, input_ids: torch.Tensor, **_) -> CausalLMOutput:
        past = torch.cat([torch.full((len(input_ids), 3), V), input_ids], dim=1)
        # the first token names the table; nothing stands before the second
        row = input_ids[:, 0] - V
        past = torch.where(past >= V, V, past)
        return CausalLMOutput(
            logits=self.tables[row, past[:, -3], past[:, -2], past[:, -1]][:, None]
        )


def tables() -> np.ndarray:
    """Random logits whose end token is likely in some rows and rare in others, so that unfinished
    texts overtake finished ones."""
    logits = 1.5 * np.random.default_rng(7).normal(size=(ROWS, V + 1, V + 1, V + 1, V))
    logits[..., END] += np.linspace(-1.5, 1.5, ROWS)[:, None, None, None]
    return logits.astype(np.float32)


def main() -> None:
    logits = tables()
    model = Table(PretrainedConfig(vocab_size=V + ROWS), torch.from_numpy(logits)).eval()
    start = torch.arange(ROWS)[:, None] + V
    found = {}
    for num_beams, length, penalty, early in itertools.product(BEAMS, LENGTHS, PENALTIES, EARLY):
        config = GenerationConfig(
            num_beams=num_beams,
            num_return_sequences=num_beams,
            max_new_tokens=length,
            length_penalty=penalty,
            early_stopping=early,
            eos_token_id=END,
            pad_token_id=PADDING,
            use_cache=False,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        output = model.generate(start, generation_config=config)
        texts = output.sequences[:, 1:].numpy()
        texts = np.pad(texts, ((0, 0), (0, length - texts.shape[1])), constant_values=PADDING)
        # where transformers repeats the end token
        texts[np.cumsum(texts == END, axis=1) - (texts == END) > 0] = PADDING
        name = f"{num_beams}_{length}_{penalty}_{early}"
        found[f"texts_{name}"] = texts.reshape(ROWS, num_beams, length).astype(np.int8)
        found[f"scores_{name}"] = output.sequences_scores.numpy().reshape(ROWS, num_beams)
    np.savez_compressed(pathlib.Path(__file__).with_name("beam_search.npz"), tables=logits, **found)


if __name__ == "__main__":
    main()
