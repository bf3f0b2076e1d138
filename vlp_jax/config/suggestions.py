"""Suggests the intended key for an unknown one, from the whole config and from the names in other
code bases."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlp_jax.config.registry import root_section

ENTRY = "NAME"  # in paths, the name of an entry in a section of named entries
# least similarity of a key in the same section, and in any other
CLOSE, CLOSE_ELSEWHERE = 0.5, 0.72

# The end of a setting's path here: its names in other code bases (OpenCLIP, big_vision, timm,
# PyTorch, transformers, Keras).
SYNONYMS = {
    "optimizer.learning_rate": (
        "lr",
        "rate",
        "base_lr",
        "peak_lr",
        "max_lr",
        "init_lr",
        "base_learning_rate",
        "step_size",
    ),
    "optimizer.weight_decay": ("wd", "decay_weight", "l2"),
    "optimizer.b1": ("beta1", "adam_beta1", "adam_b1", "betas"),
    "optimizer.b2": ("beta2", "adam_beta2", "adam_b2"),
    "optimizer.epsilon": ("eps", "adam_epsilon", "adam_eps"),
    "optimizer.kind": ("optim", "opt", "optimizer_name", "optimizer_type", "optax_name"),
    "optimizer.frozen": ("freeze", "frozen_layers", "lock", "lock_image", "lock_text", "trainable"),
    "optimizer.lr_multipliers": ("lr_mults", "rate_rules", "layer_decay", "layerwise_lr_decay"),
    "optimizer.clip_norm": (
        "grad_clip",
        "grad_clip_norm",
        "gradient_clip",
        "gradient_clip_val",
        "max_grad_norm",
        "clip_grad",
        "clip_grad_norm",
        "gradient_clipping",
    ),
    "optimizer.schedule.kind": (
        "scheduler",
        "lr_scheduler",
        "lr_scheduler_type",
        "lr_schedule",
        "sched",
        "decay_type",
    ),
    "optimizer.schedule.warmup": (
        "warmup_steps",
        "num_warmup_steps",
        "warmup_ratio",
        "warmup_epochs",
        "warmup_iters",
        "warm_up",
    ),
    "optimizer.schedule.final": ("min_lr", "end_lr", "lr_end", "end_value"),
    "steps": (
        "num_steps",
        "total_steps",
        "max_steps",
        "train_steps",
        "num_train_steps",
        "training_steps",
        "iterations",
        "max_iters",
    ),
    "epochs": ("num_epochs", "max_epochs", "total_epochs", "train_epochs", "num_train_epochs"),
    "examples": ("samples", "num_samples", "total_examples", "samples_seen", "train_num_samples"),
    "seed": ("random_seed", "rng_seed", "rng", "prng_seed"),
    "log_every": (
        "log_interval",
        "log_every_n_steps",
        "log_every_steps",
        "logging_steps",
        "log_steps",
        "print_freq",
        "log_training_steps",
    ),
    "data.batch_size": (
        "bs",
        "batch",
        "global_batch_size",
        "train_batch_size",
        "per_device_batch_size",
        "per_device_train_batch_size",
        "local_batch_size",
        "batchsize",
    ),
    "data.workers": ("num_workers", "n_workers", "nworkers", "dataloader_num_workers"),
    "data.prefetch": ("prefetch_factor", "prefetch_size", "prefetch_batches"),
    "data.train.source": (
        "train_data",
        "train_path",
        "dataset",
        "data_path",
        "data_dir",
        "train_dataset",
        "input",
        "shards",
        "urls",
    ),
    "data.augmentation": ("aug", "aug_cfg", "augment", "transforms", "augmentations"),
    "data.augmentation.area": ("random_resized_crop", "crop_scale", "scale_range"),
    "data.augmentation.flip": ("hflip", "horizontal_flip", "random_flip"),
    "data.augmentation.erase": ("random_erasing", "re_prob", "reprob"),
    "data.text.tokenizer": (
        "tokenizer_name",
        "hf_tokenizer_name",
        "vocab",
        "vocab_file",
        "vocab_path",
        "bpe",
    ),
    "data.images.interpolation": ("resample",),
    "data.images.resize": ("resize_mode",),
    "model.image.image_size": (
        "img_size",
        "resolution",
        "image_resolution",
        "input_size",
        "size",
        "res",
    ),
    "model.text.length": (
        "context_length",
        "max_length",
        "max_len",
        "seq_len",
        "sequence_length",
        "max_seq_len",
        "text_length",
    ),
    "model.text.vocab_size": ("num_tokens", "vocabulary_size", "n_vocab"),
    "model.image.preset": ("variant", "arch", "model_name", "vision_model"),
    "model.embedding_dim": (
        "embed_dim",
        "embedding_size",
        "projection_dim",
        "out_dim",
        "output_dim",
    ),
    "width": ("hidden_size", "d_model", "hidden_width", "dim", "emb_dim"),
    "depth": ("num_layers", "layers", "n_layers", "num_hidden_layers", "n_layer"),
    "heads": ("num_heads", "n_heads", "num_attention_heads", "n_head"),
    "mlp_dim": ("intermediate_size", "mlp_ratio", "ffn_dim", "feedforward_dim", "mlp_width"),
    "dropout": ("drop_rate", "dropout_rate", "drop"),
    "attention_dropout": ("attn_dropout", "attn_drop", "attn_drop_rate"),
    "stochastic_depth": ("drop_path", "drop_path_rate", "droppath"),
    "token_drop": ("patch_dropout", "patch_drop_rate"),
    "pooling": ("pool", "pool_type", "global_pool"),
    "position": ("posemb", "pos_embed", "positional_embedding"),
    "rematerialisation": (
        "remat",
        "remat_policy",
        "grad_checkpointing",
        "gradient_checkpointing",
        "activation_checkpointing",
        "rematerialization",
    ),
    "initialization": ("init", "initialisation", "initializer"),
    "ema": ("ema_decay", "use_ema", "model_ema", "ema_rate", "polyak", "average"),
    "accumulation.microbatches": (
        "accum_freq",
        "grad_accum",
        "grad_accum_steps",
        "gradient_accumulation_steps",
        "accumulate",
        "accumulation_steps",
        "microbatch_size",
        "accumulate_grad_batches",
    ),
    "precision.compute": (
        "dtype",
        "amp",
        "bf16",
        "fp16",
        "mixed_precision",
        "compute_dtype",
        "half_precision",
        "param_dtype",
        "use_bf16",
    ),
    "mesh.data": ("dp", "data_parallel", "num_devices", "devices"),
    "mesh.tensor": ("tp", "tensor_parallel", "model_parallel", "mp"),
    "checkpoint.every_steps": (
        "save_every",
        "save_steps",
        "save_frequency",
        "ckpt_steps",
        "ckpt_every",
        "checkpoint_every",
        "save_interval",
        "checkpoint_every_steps",
    ),
    "checkpoint.keep": ("save_total_limit", "max_to_keep", "keep_ckpts", "keep_checkpoints"),
    "writers": ("report_to", "loggers", "logger", "log_to", "trackers"),
    "evaluators": ("evals", "eval", "evaluation", "evaluator", "validation", "val"),
    "evaluators.NAME.source": (
        "val_data",
        "eval_data",
        "val_path",
        "test_data",
        "imagenet_val",
        "val_dataset",
    ),
    "evaluators.NAME.every_steps": (
        "eval_every",
        "eval_steps",
        "val_frequency",
        "eval_interval",
        "eval_freq",
        "zeroshot_frequency",
        "val_check_interval",
    ),
    "evaluators.NAME.batch_size": (
        "eval_batch_size",
        "val_batch_size",
        "per_device_eval_batch_size",
    ),
    "evaluators.NAME.tasks": ("metrics", "eval_tasks"),
    "evaluators.NAME.tasks.zero_shot.templates": (
        "prompts",
        "prompt_templates",
        "zeroshot_templates",
    ),
    "evaluators.NAME.tasks.captions.num_beams": ("beams", "beam_size"),
    "std": ("deviation", "stddev", "standard_deviation"),
    "negatives_from": ("wrong",),
    "features": ("of",),
    "objectives": ("loss", "losses", "loss_type", "objective"),
    "objectives.NAME.initial_scale": (
        "temperature",
        "logit_scale",
        "init_logit_scale",
        "temperature_init",
        "tau",
    ),
    "objectives.NAME.initial_bias": ("logit_bias", "init_logit_bias", "bias_init"),
    "pretrained": ("init_from", "model_init", "finetune_from", "load_from", "init_ckpt"),
    "watchdog.seconds": ("timeout", "hang_timeout"),
}
CALLED = {name: end for end, names in SYNONYMS.items() for name in names}
# Other names of kinds, for which the spelling alone would suggest another kind.
KINDS = {
    "softmax": "clip",
    "infonce": "clip",
    "info_nce": "clip",
    "sigmoid": "siglip",
    "image_views": "simclr",
    "nt_xent": "simclr",
}


def flag_suggestion(flag: str, schema: type) -> str:
    """The intended override for an unknown flag such as `--batch-size=3`, or an empty text.

    It is in brackets, for the end of a message.
    """
    name, equals, value = flag.removeprefix("--").partition("=")
    found = suggestion(name.replace("-", "_"), [], schema, {}) if flag.startswith("--") else ""
    path = found.partition("'")[2].partition("'")[0]
    return f" (did you mean --config.{path}{equals}{value}?)" if path else ""


def suggestion(path: str, siblings: list[str], schema: type, tree: Mapping, rest: str = "") -> str:
    """The intended key for an unknown one, in brackets for the end of a message: "(did you mean
    'depth'?)".

    Args:
      path: the unknown key with its section, dotted.
      siblings: the keys of its section.
      schema: the dataclass of the whole config.
      tree: the config as it was given; its entries' names are used.
      rest: where the unknown key is a section, the dotted key inside it.
    Returns: the closest key of the same section by its last name, one of another section by its
      whole path, or all keys of the section where none is similar.
    """
    everywhere = list(dict.fromkeys(paths_of(schema)))
    meant = meant_by(path, siblings, everywhere, tree)
    if rest:
        section = path.rpartition(".")[0]
        whole = meant if not meant or meant not in siblings or not section else f"{section}.{meant}"
        inside = f"{whole}.{rest}" in {named(other, tree) for other in everywhere}
        meant = meant if inside else meant_by(f"{path}.{rest}", [], everywhere, tree) or meant
    return (
        f"(did you mean {meant!r}?)"
        if meant
        else f"(there are: {', '.join(siblings)})"
        if siblings
        else ""
    )


def meant_by(path: str, siblings: list[str], everywhere: list[str], tree: Mapping) -> str | None:
    """The key closest to an unknown one: the name of a sibling, or the path of another; None if
    none is similar."""
    *section, key = path.split(".")
    if CALLED.get(key.lower()) in siblings:
        return CALLED[key.lower()]
    deeper = [
        other
        for other in everywhere
        if section and other.startswith(f"{section[0]}.") and other.endswith(f".{key.lower()}")
    ]
    for found in (
        deeper,
        *(
            [other for other in everywhere if wanted and f".{other}".endswith(f".{wanted}")]
            for wanted in (CALLED.get(key.lower()), key.lower())
        ),
    ):
        if found:
            return named(nearest(found, section), tree, section)
    here = difflib.get_close_matches(key, siblings, n=1, cutoff=CLOSE)
    # keys of this section that are not siblings are of another kind
    elsewhere = similar(
        key,
        [
            other
            for other in everywhere
            if named(other, tree).rpartition(".")[0] != ".".join(section)
        ],
        section,
    )
    if elsewhere and (not here or likeness(key, last(elsewhere)) > likeness(key, here[0]) + 0.15):
        return named(elsewhere, tree, section)
    return here[0] if here else None


def paths_of(kind: type, prefix: str = "") -> Iterator[str]:
    """The dotted path of each key of a dataclass of the schema.

    An entry of a section of named entries is `NAME`; one inside of an entry, such as a task of an
    evaluator, has the name of its kind.
    """
    hints = typing.get_type_hints(kind)
    if hasattr(kind, "kinds"):
        yield f"{prefix}kind"
    for field in dataclasses.fields(kind):
        path = f"{prefix}{field.name}"
        yield path
        for inner, entry in sections_in(hints[field.name]):
            name = (
                inner.kinds.name_of(inner) if ENTRY in prefix and hasattr(inner, "kinds") else ENTRY
            )
            yield from paths_of(inner, f"{path}.{name}." if entry else f"{path}.")


def sections_of_entries(kind: type, prefix: str = "") -> Iterator[str]:
    """The dotted path of each section whose entries have names of their own; such a name is `NAME`
    in paths of other sections."""
    for name, hint in typing.get_type_hints(kind).items():
        if typing.get_origin(hint) is dict and dataclasses.is_dataclass(
            entry := typing.get_args(hint)[1]
        ):
            yield f"{prefix}{name}"
            yield from sections_of_entries(entry, f"{prefix}{name}.{ENTRY}.")
        elif dataclasses.is_dataclass(hint) and not hasattr(hint, "kinds"):
            yield from sections_of_entries(hint, f"{prefix}{name}.")


def sections_in(hint: Any, entry: bool = False) -> Iterator[tuple[type, bool]]:
    """The dataclasses allowed by a field's type, and whether each is an entry with a name of its
    own."""
    if hasattr(hint, "kinds"):
        yield from ((declaration, entry) for declaration in hint.kinds.values())
    elif dataclasses.is_dataclass(hint):
        yield hint, entry
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for argument in typing.get_args(hint):
            yield from sections_in(argument, entry)
    elif typing.get_origin(hint) is dict:
        yield from sections_in(typing.get_args(hint)[1], entry=True)


def nearest(paths: list[str], section: list[str]) -> str:
    """The path that shares the longest prefix with a section; of several, the shortest."""

    def shared(path: str) -> int:
        parts = path.split(".")
        return next(
            (i for i, pair in enumerate(zip(parts, section, strict=False)) if pair[0] != pair[1]),
            min(len(parts), len(section)),
        )

    return min(paths, key=lambda path: (-shared(path), path.count("."), ENTRY in path))


def similar(key: str, paths: list[str], section: list[str]) -> str | None:
    """The path whose last name is spelled most like a key; None if none is similar."""
    best = max((likeness(key, last(path)) for path in paths), default=0.0)
    return (
        nearest([path for path in paths if likeness(key, last(path)) == best], section)
        if best >= CLOSE_ELSEWHERE
        else None
    )


def likeness(one: str, other: str) -> float:
    """Similarity of a key to a name of the schema, from 0 to 1, ignoring case."""
    return difflib.SequenceMatcher(None, one.lower(), other).ratio()


def last(path: str) -> str:
    """The last name of a dotted path."""
    return path.rpartition(".")[2]


def named(path: str, tree: Mapping, at: Sequence[str] = ()) -> str:
    """A path with `NAME` replaced by the name of the entry that is `at` this place, else of the
    first entry of its section."""
    section, entry, rest = path.partition(f".{ENTRY}.")
    before = section.split(".")
    if entry and list(at[: len(before)]) == before and len(at) > len(before):
        return f"{section}.{at[len(before)]}.{rest}"
    entries: Any = tree if entry else None
    for part in section.split("."):
        entries = entries.get(part) if isinstance(entries, Mapping) else None
    found = (
        next((name for name, each in entries.items() if may_have(section, name, each, rest)), None)
        if (isinstance(entries, Mapping))
        else None
    )
    return path if found is None else f"{section}.{found}.{rest}"


def may_have(section: str, name: str, entry: Any, rest: str) -> bool:
    """Whether an entry of a section of named entries is of a kind that has the key `rest`; True
    where it has no kinds."""
    item: Any = root_section()
    for part in section.split("."):
        item = typing.get_type_hints(item).get(part) if isinstance(item, type) else None
        item = typing.get_args(item)[1] if typing.get_origin(item) is dict else item
    if not hasattr(item, "kinds"):
        return True
    kind = str(entry.get("kind", name)) if isinstance(entry, Mapping) else name
    key = rest.partition(".")[0]
    return (
        kind not in item.kinds
        or key == "kind"
        or any(field.name == key for field in dataclasses.fields(item.kinds[kind]))
    )
