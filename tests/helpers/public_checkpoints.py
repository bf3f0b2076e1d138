"""Public checkpoints of other libraries, of any size and without PyTorch: their config and the
names and shapes of their tensors as those libraries have them, and files with them.

Each function returns a `Checkpoint`; its defaults are the published sizes.
"""

import dataclasses
import json
import pathlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The files of a checkpoint.

    Attributes:
      format: the format's name.
      config: its config.
      shapes: {name of a tensor: shape}.
      files: names of the files of config and tensors.
    """

    format: str
    config: dict
    shapes: dict[str, tuple[int, ...]]
    files: tuple[str, str] = ("config.json", "model.safetensors")

    def write(self, folder: pathlib.Path, rng: np.random.Generator | None = None) -> str:
        """Writes the files and returns the place, FORMAT:DIR.

        Args:
          folder: the folder, which may not exist.
          rng: of the tensors' values. None: they are not written, but for their number of bytes
            in a sparse file, which takes no space.
        """
        folder.mkdir(parents=True)
        (folder / self.files[0]).write_text(json.dumps(self.config))
        path = folder / self.files[1]
        if rng is None:
            header, end = header_of(self.shapes)
            path.write_bytes(header)
            with path.open("r+b") as file:
                file.truncate(len(header) + end)
        else:
            from safetensors.numpy import save_file

            save_file({name: drawn(name, shape, rng) for name, shape in self.shapes.items()}, path)
        return f"{self.format}:{folder}"


def drawn(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random values; those of a variance are positive."""
    values = np.asarray(rng.standard_normal(shape) * 0.1, np.float32)
    return np.abs(values) + np.float32(0.5) if name.endswith("running_var") else values


def header_of(shapes: dict[str, tuple[int, ...]]) -> tuple[bytes, int]:
    """The header of a safetensors file, and the number of bytes behind it."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        entries[name] = dict(dtype="F32", shape=shape, data_offsets=(begin, end))
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end


def linear(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """A weight of this shape and a bias of its first side."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def norm(name: str, width: int, weight: str = "weight", bias: str = "bias") -> dict:
    """The parameters of a LayerNorm."""
    return {f"{name}.{weight}": (width,), f"{name}.{bias}": (width,)}


def timm_vit(
    architecture: str = "vit_base_patch16_224",
    *,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp: int = 3072,
    patch: int = 16,
    side: int = 14,
    classes: int = 1000,
) -> Checkpoint:
    """A ViT of timm with one class token."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + side**2, width),
        **linear("patch_embed.proj", width, 3, patch, patch),
    }
    for layer in range(depth):
        name = f"blocks.{layer}"
        shapes |= {
            **norm(f"{name}.norm1", width),
            **linear(f"{name}.attn.qkv", 3 * width, width),
            **linear(f"{name}.attn.proj", width, width),
            **norm(f"{name}.norm2", width),
            **linear(f"{name}.mlp.fc1", mlp, width),
            **linear(f"{name}.mlp.fc2", width, mlp),
        }
    shapes |= norm("norm", width) | (linear("head", classes, width) if classes else {})
    given = {} if heads == width // 64 else {"model_args": {"num_heads": heads}}
    config = {"architecture": architecture, "num_classes": classes, "pretrained_cfg": {}, **given}
    return Checkpoint("timm", config, shapes)


def batch_norm(name: str, width: int) -> dict:
    """The tensors of a BatchNorm."""
    statistics = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return norm(name, width) | statistics | {f"{name}.num_batches_tracked": ()}


def timm_resnet50(
    *, width: int = 64, blocks: tuple[int, ...] = (3, 4, 6, 3), classes: int = 1000
) -> Checkpoint:
    """timm's ResNet-50."""
    shapes = {"conv1.weight": (width, 3, 7, 7), **batch_norm("bn1", width)}
    before = width
    for stage, count in enumerate(blocks):
        inner, outer = width * 2**stage, 4 * width * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            for i, (out, into, side) in enumerate(
                ((inner, before, 1), (inner, inner, 3), (outer, inner, 1)), 1
            ):
                shapes[f"{name}.conv{i}.weight"] = (out, into, side, side)
                shapes |= batch_norm(f"{name}.bn{i}", out)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (outer, before, 1, 1)
                shapes |= batch_norm(f"{name}.downsample.1", outer)
            before = outer
    shapes |= linear("fc", classes, before)
    return Checkpoint("timm", {"architecture": "resnet50", "pretrained_cfg": {}}, shapes)


def timm_vgg16(*, width: int = 64, hidden: int = 4096, side: int = 7) -> Checkpoint:
    """timm's VGG-16 without BatchNorm."""
    shapes, number, before = {}, 0, 3
    for stage, count in enumerate((2, 2, 3, 3, 3)):
        for _ in range(count):
            after = width * min(2**stage, 8)
            shapes |= linear(f"features.{number}", after, before, 3, 3)
            number, before = number + 2, after
        number += 1
    shapes |= {
        **linear("pre_logits.fc1", hidden, before, side, side),
        **linear("pre_logits.fc2", hidden, hidden, 1, 1),
        **linear("head.fc", 1000, hidden),
    }
    config = {"architecture": "vgg16", "pretrained_cfg": {"input_size": [3, 32 * side, 32 * side]}}
    return Checkpoint("timm", config, shapes)


def huggingface_vit(
    *,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp: int = 3072,
    patch: int = 16,
    image: int = 224,
    head: bool = False,
) -> Checkpoint:
    """transformers' ViTModel with its pooler, or its class with a head for ImageNet."""
    prefix = "vit." if head else ""
    own = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, 1 + (image // patch) ** 2, width),
        **linear("embeddings.patch_embeddings.projection", width, 3, patch, patch),
        **norm("layernorm", width),
    }
    for layer in range(depth):
        name = f"encoder.layer.{layer}"
        own |= {
            **norm(f"{name}.layernorm_before", width),
            **norm(f"{name}.layernorm_after", width),
            **linear(f"{name}.attention.output.dense", width, width),
            **linear(f"{name}.intermediate.dense", mlp, width),
            **linear(f"{name}.output.dense", width, mlp),
        }
        for part in ("query", "key", "value"):
            own |= linear(f"{name}.attention.attention.{part}", width, width)
    shapes = {f"{prefix}{name}": shape for name, shape in own.items()}
    shapes |= linear("classifier", 1000, width) if head else linear("pooler.dense", width, width)
    config = dict(
        architectures=["ViTForImageClassification" if head else "ViTModel"],
        model_type="vit",
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=mlp,
        image_size=image,
        patch_size=patch,
    )
    return Checkpoint("huggingface", config, shapes)


def bert_layers(prefix: str, depth: int, width: int, mlp: int) -> dict:
    """The layers of a BERT or a RoBERTa."""
    shapes = {}
    for layer in range(depth):
        name = f"{prefix}encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes |= linear(f"{name}.attention.self.{part}", width, width)
        shapes |= {
            **linear(f"{name}.attention.output.dense", width, width),
            **norm(f"{name}.attention.output.LayerNorm", width),
            **linear(f"{name}.intermediate.dense", mlp, width),
            **linear(f"{name}.output.dense", width, mlp),
            **norm(f"{name}.output.LayerNorm", width),
        }
    return shapes


def bert_embeddings(prefix: str, width: int, vocabulary: int, length: int, types: int) -> dict:
    """The embeddings of a BERT or a RoBERTa."""
    return {
        f"{prefix}embeddings.word_embeddings.weight": (vocabulary, width),
        f"{prefix}embeddings.position_embeddings.weight": (length, width),
        f"{prefix}embeddings.token_type_embeddings.weight": (types, width),
        **norm(f"{prefix}embeddings.LayerNorm", width),
    }


def bert(
    *,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp: int = 3072,
    vocabulary: int = 30522,
    length: int = 512,
) -> Checkpoint:
    """bert-base-uncased as it is on the hub: with a pooler, both heads of its pretraining, and old
    names of the norms' parameters."""
    shapes = {
        **bert_embeddings("bert.", width, vocabulary, length, 2),
        **bert_layers("bert.", depth, width, mlp),
        **linear("bert.pooler.dense", width, width),
        "cls.predictions.bias": (vocabulary,),
        **linear("cls.predictions.transform.dense", width, width),
        **norm("cls.predictions.transform.LayerNorm", width),
        **linear("cls.seq_relationship", 2, width),
    }
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): shape
        for name, shape in shapes.items()
    }
    config = dict(
        architectures=["BertForMaskedLM"],
        model_type="bert",
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=mlp,
        vocab_size=vocabulary,
        max_position_embeddings=length,
    )
    return Checkpoint("huggingface", config, old)


def roberta(
    *,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp: int = 3072,
    vocabulary: int = 50265,
    length: int = 514,
) -> Checkpoint:
    """roberta-base as it is on the hub."""
    shapes = {
        **bert_embeddings("roberta.", width, vocabulary, length, 1),
        **bert_layers("roberta.", depth, width, mlp),
        "lm_head.bias": (vocabulary,),
        **linear("lm_head.dense", width, width),
        **norm("lm_head.layer_norm", width),
    }
    config = dict(
        architectures=["RobertaForMaskedLM"],
        model_type="roberta",
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=mlp,
        vocab_size=vocabulary,
        max_position_embeddings=length,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    return Checkpoint("huggingface", config, shapes)


def gpt2(
    *,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    vocabulary: int = 50257,
    length: int = 1024,
) -> Checkpoint:
    """gpt2 as it is on the hub: without the prefix of its class."""
    shapes = {
        "wte.weight": (vocabulary, width),
        "wpe.weight": (length, width),
        **norm("ln_f", width),
    }
    for layer in range(depth):
        name = f"h.{layer}"
        shapes |= {**norm(f"{name}.ln_1", width), **norm(f"{name}.ln_2", width)}
        shapes[f"{name}.attn.bias"] = (1, 1, length, length)
        for part, into, out in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            shapes |= {f"{name}.{part}.weight": (into, out), f"{name}.{part}.bias": (out,)}
    config = dict(
        architectures=["GPT2LMHeadModel"],
        model_type="gpt2",
        n_embd=width,
        n_layer=depth,
        n_head=heads,
        vocab_size=vocabulary,
        n_positions=length,
    )
    return Checkpoint("huggingface", config, shapes)


def residual_block(name: str, width: int, mlp: int) -> dict:
    """A layer of OpenCLIP."""
    return {
        **norm(f"{name}.ln_1", width),
        f"{name}.attn.in_proj_weight": (3 * width, width),
        f"{name}.attn.in_proj_bias": (3 * width,),
        **linear(f"{name}.attn.out_proj", width, width),
        **norm(f"{name}.ln_2", width),
        **linear(f"{name}.mlp.c_fc", mlp, width),
        **linear(f"{name}.mlp.c_proj", width, mlp),
    }


def openclip(
    *,
    width: int = 768,
    depth: int = 12,
    head_width: int = 64,
    patch: int = 16,
    image: int = 224,
    text_width: int = 512,
    text_depth: int = 12,
    text_heads: int = 8,
    vocabulary: int = 49408,
    length: int = 77,
    embedding: int = 512,
) -> Checkpoint:
    """OpenAI's CLIP in OpenCLIP's format."""
    shapes = {
        "positional_embedding": (length, text_width),
        "text_projection": (text_width, embedding),
        "logit_scale": (),
        "token_embedding.weight": (vocabulary, text_width),
        **norm("ln_final", text_width),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (1 + (image // patch) ** 2, width),
        "visual.proj": (width, embedding),
        "visual.conv1.weight": (width, 3, patch, patch),
        **norm("visual.ln_pre", width),
        **norm("visual.ln_post", width),
    }
    for layer in range(depth):
        shapes |= residual_block(f"visual.transformer.resblocks.{layer}", width, 4 * width)
    for layer in range(text_depth):
        shapes |= residual_block(f"transformer.resblocks.{layer}", text_width, 4 * text_width)
    model = {
        "embed_dim": embedding,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": image,
            "layers": depth,
            "width": width,
            "head_width": head_width,
            "patch_size": patch,
        },
        "text_cfg": {
            "context_length": length,
            "vocab_size": vocabulary,
            "width": text_width,
            "heads": text_heads,
            "layers": text_depth,
        },
    }
    files = ("open_clip_config.json", "open_clip_model.safetensors")
    return Checkpoint("openclip", {"model_cfg": model, "preprocess_cfg": {}}, shapes, files)
