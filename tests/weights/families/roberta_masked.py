"""transformers' RobertaForMaskedLM, and its loss."""

import roberta
from bert_masked import ours as ours
from bert_masked import outputs as outputs
from weight_reference import draw_masked, load_huggingface, perturb, save_huggingface

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import RobertaForMaskedLM

    return perturb(RobertaForMaskedLM(roberta.config_of(variant)), variant)


def inputs(variant, rng):
    return draw_masked(roberta.inputs(variant, rng), rng)


def load(folder):
    return load_huggingface("RobertaForMaskedLM", folder)
