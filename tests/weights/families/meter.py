"""METER's released code; built of transformers' RobertaModel or BertModel and BertLayer and of
PyTorch's MultiheadAttention, as its source has it (github zdou0830/METER, meter/modules):
meter_module.py:46-99 (parts) and :173 (`infer`), clip_model.py:24 and :63 (image tower),
bert_model.py (`BertCrossLayer`), heads.py."""

import vilt_masked
from weight_reference import (
    SIZES,
    draw_images,
    draw_masked,
    draw_texts,
    numbers,
    perturb,
    seen,
    torch_images,
    torch_labels,
    write_json,
)

FORMAT = "original"
WIDTHS, HEADS, RATIOS, LAYERS = (20, 24, 32), (2, 3, 4), (1, 2, 3), (2, 1, 2)
TOKENIZERS = ("roberta-base", "bert-base-uncased", "roberta-large")
ANSWERS, BEYOND = 7, 3  # classes of VQA, positions that no text reaches


def prepare():
    """Heads as narrow as those of the tiny models."""
    from vlp_jax.weights.families import released_code

    released_code.HEAD_WIDTH = 8


def settings_of(variant):
    """METER's settings of a tiny model."""
    sizes = SIZES[variant]
    return dict(
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        resolution_before=sizes.image_size,
        vit="ViT-B/16",
        tokenizer=TOKENIZERS[variant],
        max_text_len=sizes.length,
        vocab_size=sizes.vocabulary,
        input_image_embed_size=sizes.image_width,
        input_text_embed_size=sizes.text_width,
        hidden_size=WIDTHS[variant],
        num_heads=HEADS[variant],
        num_layers=6,
        num_top_layer=LAYERS[variant],
        mlp_ratio=RATIOS[variant],
        drop_rate=0.1,
        loss_names=dict(mlm=1, vqa=1) if variant == 1 else dict(itm=1, mlm=1),
        vqav2_label_size=ANSWERS,
    )


def image_tower(variant):
    """CLIP's image tower without its last layer, and all of its tokens behind the final norm."""
    import torch
    from torch import nn

    sizes = SIZES[variant]
    width = sizes.image_width

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_fc = nn.Linear(width, sizes.image_mlp)
            self.c_proj = nn.Linear(sizes.image_mlp, width)

        def forward(self, x):
            x = self.c_fc(x)
            return self.c_proj(x * torch.sigmoid(1.702 * x))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(width, width // 8, batch_first=True)
            self.ln_1, self.ln_2, self.mlp = nn.LayerNorm(width), nn.LayerNorm(width), Mlp()

        def forward(self, x):
            y = self.ln_1(x)
            x = x + self.attn(y, y, y, need_weights=False)[0]
            return x + self.mlp(self.ln_2(x))

    class Visual(nn.Module):
        def __init__(self):
            super().__init__()
            patch, count = sizes.patch_size, (sizes.image_size // sizes.patch_size) ** 2
            self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
            self.class_embedding = nn.Parameter(torch.randn(width))
            self.positional_embedding = nn.Parameter(torch.randn(count + 1, width))
            self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
            layers = [Layer() for _ in range(sizes.image_depth)]
            self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(layers)})

        def forward(self, image):
            x = self.conv1(image).flatten(2).transpose(1, 2)
            token = self.class_embedding.expand(len(x), 1, width)
            x = self.ln_pre(torch.cat([token, x], dim=1) + self.positional_embedding)
            for layer in self.transformer["resblocks"]:
                x = layer(x)
            return self.ln_post(x)

    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = Visual()
            self.positional_embedding = nn.Parameter(torch.randn(5, 8))  # of CLIP's text tower
            self.ln_final = nn.LayerNorm(8)

        def forward(self, image):
            return self.visual(image)

    return Clip()


def text_tower(variant):
    """transformers' tower with a pooler, and positions beyond the longest text."""
    import transformers

    sizes, is_bert = SIZES[variant], variant == 1
    shape = dict(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.text_width,
        num_hidden_layers=sizes.text_depth,
        num_attention_heads=sizes.text_width // 8,
        intermediate_size=sizes.text_mlp,
        attn_implementation="eager",
    )
    if is_bert:
        config = transformers.BertConfig(max_position_embeddings=sizes.length + BEYOND, **shape)
        return transformers.BertModel(config)
    config = transformers.RobertaConfig(
        max_position_embeddings=2 + sizes.length + BEYOND,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **shape,
    )
    return transformers.RobertaModel(config)


def build(variant):
    import torch
    from torch import nn
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer, BertPredictionHeadTransform

    settings = settings_of(variant)
    width = settings["hidden_size"]
    config = BertConfig(
        hidden_size=width,
        num_attention_heads=settings["num_heads"],
        intermediate_size=width * settings["mlp_ratio"],
        is_decoder=True,
        add_cross_attention=True,
        attn_implementation="eager",
    )

    class Pooler(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(width, width)

        def forward(self, x):
            return torch.tanh(self.dense(x[:, 0]))

    class WordHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.transform = BertPredictionHeadTransform(config)
            self.decoder = nn.Linear(width, settings["vocab_size"], bias=False)
            self.bias = nn.Parameter(torch.zeros(settings["vocab_size"]))

        def forward(self, x):
            return self.decoder(self.transform(x)) + self.bias

    class Meter(nn.Module):
        def __init__(self):
            super().__init__()
            self.variant = variant
            self.vit_model, self.text_transformer = image_tower(variant), text_tower(variant)
            self.cross_modal_text_transform = nn.Linear(settings["input_text_embed_size"], width)
            self.cross_modal_image_transform = nn.Linear(settings["input_image_embed_size"], width)
            self.token_type_embeddings = nn.Embedding(2, width)
            layers = [
                nn.ModuleList([BertLayer(config) for _ in range(settings["num_top_layer"])])
                for _ in range(2)
            ]
            self.cross_modal_image_layers, self.cross_modal_text_layers = layers
            self.cross_modal_image_pooler, self.cross_modal_text_pooler = Pooler(), Pooler()
            self.mlm_score = WordHead()
            if variant == 1:  # fine-tuned
                self.vqa_classifier = nn.Sequential(
                    nn.Linear(2 * width, 2 * width),
                    nn.LayerNorm(2 * width),
                    nn.GELU(),
                    nn.Linear(2 * width, ANSWERS),
                )
            else:
                self.itm_score = nn.ModuleDict({"fc": nn.Linear(2 * width, 2)})

        def forward(self, image, text, mask):
            hidden = -1e4 * (1.0 - mask[:, None, None].float())
            x = self.text_transformer.embeddings(input_ids=text)
            for layer in self.text_transformer.encoder.layer:
                x = layer(x, hidden)
            types = self.token_type_embeddings.weight
            x = self.cross_modal_text_transform(x) + types[0]
            y = self.cross_modal_image_transform(self.vit_model(image)) + types[1]
            pairs = zip(self.cross_modal_text_layers, self.cross_modal_image_layers, strict=True)
            for of_text, of_image in pairs:
                x, y = of_text(x, hidden, y, None), of_image(y, None, x, hidden)
            pooled = self.cross_modal_text_pooler(x), self.cross_modal_image_pooler(y)
            return x, y, torch.cat(pooled, dim=-1)

    return perturb(Meter(), variant)


def save(model, folder):
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors")
    write_json(folder / "config.json", settings_of(model.variant))
    if model.variant == 1:
        (folder / "answers.txt").write_text("\n".join(map(str, range(ANSWERS))))


def inputs(variant, rng):
    tokens, words = ((58, 5, 0), (7, 57)) if variant == 1 else ((0, 2, 1), (3, 57))
    text, mask = draw_texts(SIZES[variant], rng, tokens, words)
    image = draw_images(SIZES[variant], rng)
    return dict(image=image, **draw_masked(dict(text=text, text_mask=mask), rng))


def outputs(model, inputs):
    import torch

    mask = torch.from_numpy(inputs["text_mask"])
    texts = [torch.from_numpy(inputs[name]).long() for name in ("text", "masked")]
    with torch.no_grad():
        text, image, pooled = model(torch_images(inputs), texts[0], mask)
        logits = model.mlm_score(model(torch_images(inputs), texts[1], mask)[0])
        head = model.vqa_classifier if model.variant == 1 else model.itm_score["fc"]
        labels = torch_labels(inputs["text"], inputs["chosen"])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    found = numbers(
        tokens=text, image_tokens=image, pooled=pooled, pairs=head(pooled), logits=logits, loss=loss
    )
    return found | {name: seen(found[name], inputs) for name in ("tokens", "logits")}


def ours(model, variables, inputs):
    def computed(module, image, text, mask):
        pair = module.model.encode_image(image), module.model.encode_text(text, mask)
        fused = module.model.fuse(*pair, False)
        if "answers" in module.objectives:
            pairs = module.objectives["answers"].answers({"fused": fused}, module.model)
        else:
            pairs = module.objectives["matching"].logits(module.model, *pair)
        return dict(
            tokens=seen(fused.tokens, inputs),
            image_tokens=fused.image_tokens,
            pooled=fused.pooled,
            pairs=pairs,
        )

    arrays = inputs["image"], inputs["text"], inputs["text_mask"]
    found = model.module.apply(variables, *arrays, method=computed)
    return found | vilt_masked.ours(model, variables, inputs)
