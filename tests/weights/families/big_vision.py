"""An npz of big_vision's two towers. Its names are those that open_clip reads (convert.py,
`load_big_vision_weights`), its arrays those of a SiglipModel, whose outputs are the reference."""

import numpy as np
import siglip

FORMAT, FILE = "big_vision", "weights.npz"
TOWERS = {"img": ("vision_model", "Transformer"), "txt": ("text_model", "Encoder_0")}
build, inputs, outputs, ours = siglip.build, siglip.inputs, siglip.outputs, siglip.ours


def save(model, folder):
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    arrays = {}
    for here, (there, encoder) in TOWERS.items():
        config = model.config.vision_config if here == "img" else model.config.text_config
        arrays |= {
            f"params/{here}/{encoder}/{name}": value
            for name, value in layers(tensors, there, config).items()
        }
        arrays[f"params/{here}/pos_embedding"] = tensors[
            f"{there}.embeddings.position_embedding.weight"
        ][None]
    patches = tensors["vision_model.embeddings.patch_embedding.weight"]
    arrays["params/img/embedding/kernel"] = patches.transpose(2, 3, 1, 0)
    arrays["params/img/embedding/bias"] = tensors["vision_model.embeddings.patch_embedding.bias"]
    arrays["params/txt/Embed_0/embedding"] = tensors["text_model.embeddings.token_embedding.weight"]
    arrays["params/txt/head/kernel"] = tensors["text_model.head.weight"].T
    arrays["params/txt/head/bias"] = tensors["text_model.head.bias"]
    arrays["params/t"], arrays["params/b"] = tensors["logit_scale"], tensors["logit_bias"]
    arrays |= {f"params/img/MAPHead_0/{k}": v for k, v in pooling(tensors, model).items()}
    if model.config.vision_config.num_hidden_layers == 3:
        arrays = scanned(arrays)
    if model.config.vision_config.num_hidden_layers == 1:  # some files have no prefix
        arrays = {name.removeprefix("params/"): value for name, value in arrays.items()}
    np.savez(folder / FILE, **arrays)


def dense(tensors, name):
    return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}


def norm(tensors, name):
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def attention(parts, heads):
    """{query, key, value, out} with {kernel, bias}, as Flax has them."""
    found = {}
    for name, part in parts.items():
        kernel, bias = part["kernel"], part["bias"]
        if name == "out":
            found[name] = {"kernel": kernel.reshape(heads, -1, kernel.shape[1]), "bias": bias}
        else:
            found[name] = {
                "kernel": kernel.reshape(len(kernel), heads, -1),
                "bias": bias.reshape(heads, -1),
            }
    return found


def flat(tree, prefix=""):
    return {
        path: leaf
        for name, value in tree.items()
        for path, leaf in (
            flat(value, f"{prefix}{name}/")
            if isinstance(value, dict)
            else {f"{prefix}{name}": value}
        ).items()
    }


def layers(tensors, tower, config):
    found = {"encoder_norm": norm(tensors, f"{tower}.{final(tower)}")}
    for i in range(config.num_hidden_layers):
        layer = f"{tower}.encoder.layers.{i}"
        parts = {
            name: dense(tensors, f"{layer}.self_attn.{there}")
            for name, there in (
                ("query", "q_proj"),
                ("key", "k_proj"),
                ("value", "v_proj"),
                ("out", "out_proj"),
            )
        }
        found[f"encoderblock_{i}"] = {
            "LayerNorm_0": norm(tensors, f"{layer}.layer_norm1"),
            "MultiHeadDotProductAttention_0": attention(parts, config.num_attention_heads),
            "LayerNorm_1": norm(tensors, f"{layer}.layer_norm2"),
            "MlpBlock_0": {
                "Dense_0": dense(tensors, f"{layer}.mlp.fc1"),
                "Dense_1": dense(tensors, f"{layer}.mlp.fc2"),
            },
        }
    return flat(found)


def final(tower):
    return "post_layernorm" if tower == "vision_model" else "final_layer_norm"


def pooling(tensors, model):
    head, heads = "vision_model.head", model.config.vision_config.num_attention_heads
    weights = np.split(tensors[f"{head}.attention.in_proj_weight"], 3)
    biases = np.split(tensors[f"{head}.attention.in_proj_bias"], 3)
    parts = {
        name: {"kernel": weight.T, "bias": bias}
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True)
    }
    parts["out"] = dense(tensors, f"{head}.attention.out_proj")
    return flat(
        {
            "probe": tensors[f"{head}.probe"],
            "MultiHeadDotProductAttention_0": attention(parts, heads),
            "LayerNorm_0": norm(tensors, f"{head}.layernorm"),
            "MlpBlock_0": {
                "Dense_0": dense(tensors, f"{head}.mlp.fc1"),
                "Dense_1": dense(tensors, f"{head}.mlp.fc2"),
            },
        }
    )


def scanned(arrays):
    """The arrays with the layers of each tower stacked, as of a scan."""
    found, stacks = {}, {}
    for name, value in arrays.items():
        before, block, after = name.partition("/encoderblock_")
        number, _, rest = after.partition("/")
        if block:
            stacks.setdefault(f"{before}/encoderblock/{rest}", {})[int(number)] = value
        else:
            found[name] = value
    return found | {
        name: np.stack([parts[i] for i in sorted(parts)]) for name, parts in stacks.items()
    }
