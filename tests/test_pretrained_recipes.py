"""The variants `:pretrained` of the recipes: what they take from checkpoints of the published
shapes, and from tiny ones."""

import pathlib
import runpy
import types

import jax
import numpy as np
import public_checkpoints as public
import pytest
from safetensors.numpy import load_file

import vlp_jax
from vlp_jax.config import load_config, to_config
from vlp_jax.config.recipes import embedded_text, reduce_sections
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.training import trainer
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.checkpoints.format import describe, flat
from vlp_jax.training.initialize_from import initialize_state, origin_at, taken_from
from vlp_jax.training.state import abstract_collections, abstract_parameters
from vlp_jax.training.weight_source import PublicSource

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
NAMES = sorted(
    path.stem for path in CONFIGS.glob("*.py") if "def pretrained(config)" in path.read_text()
)
# the places that the recipes name, with the published shapes
PUBLISHED = {
    "timm:timm/deit_base_patch16_224.fb_in1k": public.timm_vit("deit_base_patch16_224"),
    "timm:timm/vit_base_patch16_224.augreg_in21k": public.timm_vit(classes=21843),
    "timm:timm/vit_base_patch16_224.dino": public.timm_vit(classes=0),
    "timm:timm/resnet50.tv_in1k": public.timm_resnet50(),
    "timm:timm/vgg16.tv_in1k": public.timm_vgg16(),
    "openclip:timm/vit_base_patch16_clip_224.openai": public.openclip(),
    "huggingface:google/vit-base-patch32-384": public.huggingface_vit(
        patch=32, image=384, head=True
    ),
    "huggingface:google/vit-base-patch16-224-in21k": public.huggingface_vit(),
    "huggingface:google-bert/bert-base-uncased": public.bert(),
    "huggingface:FacebookAI/roberta-base": public.roberta(),
    "huggingface:openai-community/gpt2": public.gpt2(),
}
# {recipe: {entry: (what the patterns find here and not there, what is there and not taken, the
# changed parameters)}}; of the paths only the ends and the beginnings
POOLER = ("model/text/pooler/",)
HEAD = ("objectives_words/",)
EXPECTED = {
    "albef": {
        "image": ((), (), ("model/image/position",)),
        "text": (("cross", "cross_norm"), POOLER, ("model/text/position",)),
    },
    "blip": {
        "image": ((), (), ()),
        "text": (
            ("cross", "cross_norm", "encode_token", "decode_token"),
            (*POOLER, "model/text/token_type"),
            ("model/text/position",),
        ),
    },
    "flava": {"image": (("mask_token",), (), ())},
    "lit_b16": {"image": ((), (), ())},
    "meter": {
        "image": (
            (),
            (
                "model/image/transformer/layer_11/",
                "model/image_projection/",
                "model/text",
                "objectives_contrastive/",
            ),
            ("model/image/position",),
        ),
        "text": ((), HEAD, ("model/text/position",)),
    },
    "resnet50_bert_concat": {"image": ((), (), ()), "text": ((), HEAD, ("model/text/position",))},
    "vgg16_lstm_caption": {"image": ((), (), ())},
    "vilt": {"layers": ((), (), ())},
    "vit_gpt2": {
        "image": ((), ("model/image/pooler/",), ()),
        "decoder": (("cross", "cross_norm"), (), ("model/decoder/position",)),
    },
}
# ViLT's code has timm's epsilon, and the hub's config another one
SETTINGS = {
    ("vilt", "layers"): (
        "model.fusion.norm_epsilon 1e-06 (there 1e-12)",
        "model.image.norm_epsilon 1e-06 (there 1e-12)",
    )
}
SIZE = dict(width=16, heads=2)
BERT = dict(SIZE, mlp=32, length=20)
VIT = dict(SIZE, mlp=32, patch=8)
DEIT = public.timm_vit("deit_base_patch16_224", **VIT, depth=2, side=3, classes=5)
# {recipe: {entry: a tiny checkpoint}}; of those with words by their number
TINY = {
    "albef": {
        "image": lambda words: DEIT,
        "text": lambda words: public.bert(**BERT, depth=8, vocabulary=words),
    },
    "blip": {
        "image": lambda words: DEIT,
        "text": lambda words: public.bert(**BERT, depth=2, vocabulary=words),
    },
    "flava": {"image": lambda words: public.timm_vit(**VIT, depth=2, side=4, classes=0)},
    "lit_b16": {"image": lambda words: public.timm_vit(**VIT, depth=2, side=4)},
    "meter": {
        "image": lambda words: public.openclip(
            width=16,
            head_width=8,
            depth=3,
            patch=8,
            image=24,
            text_width=8,
            text_depth=1,
            text_heads=1,
            vocabulary=30,
            embedding=12,
        ),
        "text": lambda words: public.roberta(**BERT, depth=2, vocabulary=words),
    },
    "resnet50_bert_concat": {
        "image": lambda words: public.timm_resnet50(width=8, blocks=(1, 1, 1, 1)),
        "text": lambda words: public.bert(**BERT, depth=2, vocabulary=words),
    },
    "vgg16_lstm_caption": {"image": lambda words: public.timm_vgg16(width=8, hidden=64, side=2)},
    "vilt": {"layers": lambda words: public.huggingface_vit(**VIT, depth=2, image=32, head=True)},
    "vit_gpt2": {
        "image": lambda words: public.huggingface_vit(**VIT, depth=2, image=32),
        "decoder": lambda words: public.gpt2(**SIZE, depth=2, vocabulary=words, length=20),
    },
}


def same(array):
    return array


def transposed(array):
    return array.T


def first(count):
    return lambda array: array[None, :count]


def behind_class(array):
    return array[:, 1:]


def query(array):
    return array[: len(array) // 3].T.reshape(16, 2, 8)


def heads(array):
    return array.T.reshape(16, 2, 8)


# {recipe: (entry, path here, number of a layer in scanned ones, tensor there, how it is changed)}
TEXT, IMAGE, FUSION = (f"model/{part}/transformer/" for part in ("text", "image", "fusion"))
BERT_LAYER = "bert.encoder.layer."
SAMPLES = {
    "albef": (
        *(
            (
                "text",
                f"{stack}layer_{layer}/{here}",
                None,
                f"{BERT_LAYER}{layer + shift}.{there}",
                change,
            )
            for stack, shift in ((TEXT, 0), (FUSION, 6))
            for layer in range(2)
            for here, there, change in (
                ("attention/key/kernel", "attention.self.key.weight", heads),
                ("attention_norm/scale", "attention.output.LayerNorm.gamma", same),
                ("mlp/in/kernel", "intermediate.dense.weight", transposed),
                ("mlp_norm/bias", "output.LayerNorm.beta", same),
            )
        ),
        (
            "text",
            "model/text/tokens/embedding",
            None,
            "bert.embeddings.word_embeddings.weight",
            same,
        ),
        (
            "text",
            "model/text/position",
            None,
            "bert.embeddings.position_embeddings.weight",
            first(8),
        ),
        ("text", "objectives_words/head/bias", None, "cls.predictions.bias", same),
        ("image", "model/image/norm/scale", None, "norm.weight", same),
        (
            "image",
            f"{IMAGE}layer_1/attention/query/kernel",
            None,
            "blocks.1.attn.qkv.weight",
            query,
        ),
    ),
    "blip": (
        *(
            (
                "text",
                f"{TEXT}layer_1/{name}/value/bias",
                None,
                f"{BERT_LAYER}1.attention.self.value.bias",
                lambda array: array.reshape(2, 8),
            )
            for name in ("attention", "decoder_attention")
        ),
        (
            "text",
            f"{TEXT}layer_0/decoder_attention_norm/bias",
            None,
            f"{BERT_LAYER}0.attention.output.LayerNorm.beta",
            same,
        ),
        (
            "text",
            "model/decoder/dense/kernel",
            None,
            "cls.predictions.transform.dense.weight",
            transposed,
        ),
        ("image", "model/image/class_token", None, "cls_token", same),
    ),
    "flava": (
        ("image", f"{IMAGE}layers/mlp/out/kernel", 1, "blocks.1.mlp.fc2.weight", transposed),
        ("image", "model/image/position", None, "pos_embed", behind_class),
    ),
    "lit_b16": (
        ("image", f"{IMAGE}layers/mlp_norm/scale", 0, "blocks.0.norm2.weight", same),
        ("image", "model/image/position", None, "pos_embed", behind_class),
    ),
    "meter": (
        *(
            (
                "image",
                f"{IMAGE}layers/mlp/in/kernel",
                layer,
                f"visual.transformer.resblocks.{layer}.mlp.c_fc.weight",
                transposed,
            )
            for layer in range(2)
        ),
        ("image", "model/image/norm/bias", None, "visual.ln_post.bias", same),
        (
            "text",
            f"{TEXT}layers/attention/query/kernel",
            1,
            "roberta.encoder.layer.1.attention.self.query.weight",
            heads,
        ),
        (
            "text",
            "model/text/position",
            None,
            "roberta.embeddings.position_embeddings.weight",
            first(10),
        ),
    ),
    "resnet50_bert_concat": (
        (
            "image",
            "model/image/stage_2_block_0/convolution_1/kernel",
            None,
            "layer3.0.conv2.weight",
            lambda array: array.transpose(2, 3, 1, 0),
        ),
        ("text", "model/text/pooler/kernel", None, "bert.pooler.dense.weight", transposed),
    ),
    "vgg16_lstm_caption": (
        (
            "image",
            "model/image/stage_4/convolution_2/kernel",
            None,
            "features.28.weight",
            lambda array: array.transpose(2, 3, 1, 0),
        ),
        ("image", "model/image/hidden_1/bias", None, "pre_logits.fc2.bias", same),
    ),
    "vilt": (
        *(
            (
                "layers",
                f"{FUSION}layers/attention/key/kernel",
                layer,
                f"vit.encoder.layer.{layer}.attention.attention.key.weight",
                heads,
            )
            for layer in range(2)
        ),
        ("layers", "model/fusion/norm/scale", None, "vit.layernorm.weight", same),
        (
            "layers",
            "model/image/position",
            None,
            "vit.embeddings.position_embeddings",
            behind_class,
        ),
    ),
    "vit_gpt2": (
        (
            "decoder",
            "model/decoder/transformer/layers/mlp/in/kernel",
            1,
            "h.1.mlp.c_fc.weight",
            same,
        ),
        ("decoder", "model/decoder/position", None, "wpe.weight", first(8)),
        ("image", f"{IMAGE}layers/mlp_norm/bias", 1, "encoder.layer.1.layernorm_after.bias", same),
    ),
}


def abstract(config):
    """What `origin_at` reads of a run, without compilation and without a tokenizer."""
    module, batch = build_module(config), example_batch(config)
    shapes = types.SimpleNamespace(
        params=abstract_parameters(module, batch), collections=abstract_collections(module, batch)
    )
    return types.SimpleNamespace(config=config, module=module, shapes=shapes, preprocessor=None)


def origins_of(config, places):
    """{entry: what it takes from its place}; tokenizers are not compared."""
    run, found = abstract(config), {}
    for name, spec in config.pretrained.items():
        source = PublicSource(places[name])
        source.tokenizer = None
        found[name] = origin_at(name, source, spec, run)
    return found


def tiny(name, folder):
    """The config of a recipe reduced to the sizes of its tiny checkpoints, which are written."""
    config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]("pretrained")
    sizes = Sizes(width=16, depth=2, heads=2, mlp_dim=32, batch_size=8, vocab_size=4096, length=8)
    reduce_sections(config, "smoke", sizes)
    config.update(steps=2, examples=None, epochs=None, log_every=1, evaluators={})
    config.data.update(batch_size=8, workers=0, text=embedded_text(config.data.text))
    config.data.train.update(source="synthetic:64", mixture={})
    config.optimizer.schedule.update(warmup=0.0)
    if name == "vgg16_lstm_caption":
        config.model.image.depth = 16
    if name == "vit_gpt2":
        config.model.decoder.mlp_dim = 64
    if name == "meter":
        config.model.image.mlp_dim = 64
    rng, words = np.random.default_rng(0), config.model.text.vocab_size
    for entry, made in TINY[name].items():
        config.pretrained[entry].workdir = made(words).write(folder / entry, rng)
    return to_config(config.to_dict())


def expected(config, entry, tensor, change):
    """A tensor of a tiny checkpoint as it is here."""
    folder = pathlib.Path(config.pretrained[entry].workdir.partition(":")[2])
    (file,) = folder.glob("*.safetensors")
    return change(load_file(file)[tensor])


def test_every_variant_has_a_test():
    assert sorted(EXPECTED) == sorted(TINY) == sorted(SAMPLES) == NAMES and len(NAMES) == 9
    places = {
        spec.workdir
        for name in NAMES
        for spec in load_config(f"{CONFIGS}/{name}.py:pretrained").pretrained.values()
    }
    assert places == set(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_only_towers_and_places_differ_from_the_full_recipe(name):
    full, found = (load_config(f"{CONFIGS}/{name}.py{variant}") for variant in ("", ":pretrained"))
    assert not full.pretrained and found.pretrained
    assert found.data == full.data and found.objectives == full.objectives
    assert found.evaluators == full.evaluators and found.steps == full.steps


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_fits_checkpoints_of_the_published_shapes(name, tmp_path):
    """By real headers of files that hold no values."""
    config = load_config(f"{CONFIGS}/{name}.py:pretrained")
    places = {
        entry: PUBLISHED[spec.workdir].write(tmp_path / entry)
        for entry, spec in config.pretrained.items()
    }
    found = origins_of(config, places)
    assert found.keys() == EXPECTED[name].keys()
    for entry, (left, unused, changed) in EXPECTED[name].items():
        origin = found[entry]
        assert {part(path) for path in origin.left} == set(left), entry
        others = [path for path in origin.unused if not path.startswith(unused)]
        assert not others and all(
            any(path.startswith(each) for path in origin.unused) for each in unused
        ), entry
        assert [line.split(" ")[0] for line in origin.changes] == [*changed], entry
        assert origin.settings == SETTINGS.get((name, entry), ()), entry


def part(path):
    """The branch or the parameter that a path names: "cross" of layer_3/cross/query/kernel."""
    pieces = path.split("/")
    return next((piece for piece in pieces if piece.startswith("cross")), pieces[-1])


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_takes_equals_the_tensors_of_the_checkpoint(name, tmp_path):
    """Nothing is compiled: the arrays are those of the rules."""
    config = tiny(name, tmp_path)
    places = {entry: spec.workdir for entry, spec in config.pretrained.items()}
    shapes = describe(abstract(config).shapes.params)
    taken = {}
    for entry, origin in origins_of(config, places).items():
        model = origin.source.public
        arrays = {
            path: array
            for rule in model.rules
            for path, array in zip(rule.ours, model.taken(rule), strict=True)
        }
        fresh = {path: np.zeros(shapes[path], np.float32) for path in origin.parameters}
        with jax.disable_jit():
            taken[entry] = taken_from(arrays, fresh, origin)
    for entry, path, layer, tensor, change in SAMPLES[name]:
        found = taken[entry][path]
        np.testing.assert_array_equal(
            found if layer is None else found[layer],
            expected(config, entry, tensor, change),
            err_msg=f"{path} {tensor}",
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_run_begins_with_the_checkpoints_and_trains(name, tmp_path, capsys, monkeypatch):
    config, begun = tiny(name, tmp_path), {}

    def noted(*arguments):
        state = initialize_state(*arguments)
        begun.update(jax.device_get(flat(state.params) | flat(state.collections)))
        return state

    monkeypatch.setattr(trainer, "initialize_state", noted)
    vlp_jax.train(config, str(tmp_path / "run"))
    said = capsys.readouterr().out
    for entry, spec in config.pretrained.items():
        assert f"pretrained.{entry}: " in said and f"parameters from {spec.workdir}" in said
    assert "not pretrained, as initialised by the seed: " in said
    for entry, path, layer, tensor, change in SAMPLES[name]:
        np.testing.assert_array_equal(
            begun[path] if layer is None else begun[path][layer],
            expected(config, entry, tensor, change),
            err_msg=f"{path} {tensor}",
        )
    if name == "resnet50_bert_concat":
        np.testing.assert_array_equal(
            begun["batch_stats/model/image/norm_stem/var"],
            expected(config, "image", "bn1.running_var", same),
        )


def test_an_unknown_variant_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="'full', 'smoke', 'small', 'pretrained'"):
        load_config(f"{CONFIGS}/albef.py:finetuned")
    with pytest.raises(ConfigError, match="expected 'full', 'smoke'"):
        load_config(f"{CONFIGS}/clip_b16.py:pretrained")
