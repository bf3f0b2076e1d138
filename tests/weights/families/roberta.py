"""transformers' RobertaModel."""

from bert import ours as ours
from bert import outputs as outputs
from bert import sizes_of
from weight_reference import SIZES, draw_texts, load_huggingface, perturb, save_huggingface

FORMAT = "huggingface"
save = save_huggingface
FIRST = (2, 1, 4)  # position of the first token


def places(variant):
    """Settings of positions and special tokens."""
    first = FIRST[variant]
    return dict(
        max_position_embeddings=SIZES[variant].length + first,
        pad_token_id=first - 1,
        bos_token_id=58,
        eos_token_id=5,
    )


def config_of(variant):
    """A config whose positions begin after the id of the padding token."""
    from transformers import RobertaConfig

    return RobertaConfig(
        **sizes_of(variant) | places(variant) | dict(hidden_act="gelu"), attn_implementation="eager"
    )


def build(variant):
    from transformers import RobertaModel

    return perturb(RobertaModel(config_of(variant)), variant)


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng, (58, 5, FIRST[variant] - 1), (7, 57))
    return dict(text=text, text_mask=mask)


def load(folder):
    return load_huggingface("RobertaModel", folder)
