"""Public checkpoints that cannot be read: one line that names the file and what to do, and no
folder, whole or half, where the result would have been."""

import http.server
import json
import os
import shutil
import sys
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from weight_reference import GOLDEN, family

from vlp_jax import command_line, convert
from vlp_jax.errors import CheckpointError
from vlp_jax.weights.public import read_public

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
EMBEDDING = "text_model.embeddings.token_embedding.weight"


@pytest.fixture
def place(tmp_path):
    """A folder with a CLIP and a tokenizer of 60 words, which may be damaged."""
    folder = tmp_path / "clip"
    shutil.copytree(GOLDEN / "clip_0", folder)
    words = {f"word{number}": number for number in range(57)}
    words |= {"<|startoftext|>": 57, "<|endoftext|>": 58, "<|padding|>": 59}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "word0"}
    definition = {"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}}
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|padding|>"}))
    return folder


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """What `python -m vlp_jax.convert --from=ORIGIN` says when it refuses, checked to be one line
    and to leave nothing behind."""

    def convert_from(origin, to=None):
        target = tmp_path / "result" if to is None else to
        before = {path for path in tmp_path.rglob("*")}
        status, said = leave([f"--from={origin}", f"--to={target}"], monkeypatch, capsys)
        assert status == 2 and said.count("\n") == 1 and "Traceback" not in said, said
        assert {path for path in tmp_path.rglob("*")} == before
        return said

    return convert_from


def leave(arguments, monkeypatch, capsys):
    """(status, stderr) of `python -m vlp_jax.convert ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments)])
    monkeypatch.setattr(command_line, "leave_at_once", sys.exit)
    with pytest.raises(SystemExit) as left:
        command_line.run_entry_point(convert.main)
    return left.value.code, capsys.readouterr().err


def changed(folder, **tensors):
    """Replaces tensors of a folder, by names with "__" for "."; None removes one."""
    arrays = load_file(folder / WEIGHTS)
    for name, array in tensors.items():
        arrays.pop(name.replace("__", "."), None)
        if array is not None:
            arrays[name.replace("__", ".")] = array
    save_file(arrays, folder / WEIGHTS)


def with_index(folder, names):
    """Makes an index of shards in place of the one file: {tensor: file}."""
    os.rename(folder / WEIGHTS, folder / "first.safetensors")
    arrays = load_file(folder / "first.safetensors")
    places = dict.fromkeys(arrays, "first.safetensors") | names
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))


def truncated(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])


def cut_header(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5])


def wrong_shape(folder):
    changed(folder, visual_projection__weight=np.ones((20, 23), np.float32))


def not_finite(folder):
    changed(folder, visual_projection__weight=np.full((20, 24), np.nan, np.float32))


def left_over(folder):
    changed(folder, vision_model__extra__weight=np.ones(3, np.float32))


def missing(folder):
    changed(folder, visual_projection__weight=None)


def missing_shard(folder):
    with_index(folder, {EMBEDDING: "second.safetensors"})


def shard_without_its_tensor(folder):
    with_index(folder, {"text_model.other": "first.safetensors"})


def outside(folder):
    shutil.copy(folder / WEIGHTS, folder.parent / "outside.safetensors")
    with_index(folder, {EMBEDDING: "../outside.safetensors"})


def no_index(folder):
    with_index(folder, {})
    (folder / INDEX).write_text("[]")


def only_a_pickle(folder):
    os.rename(folder / WEIGHTS, folder / "pytorch_model.bin")


def no_weights(folder):
    os.remove(folder / WEIGHTS)


def no_config(folder):
    os.remove(folder / CONFIG)


def edited(**keys):
    """A fault that changes keys of config.json."""

    def edit(folder):
        found = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**found, **keys}))

    return edit


def no_json(folder):
    (folder / CONFIG).write_text('{"model_type": "clip"')


FAULTS = {
    truncated: (WEIGHTS, "is truncated"),
    cut_header: (WEIGHTS, "is truncated"),
    wrong_shape: (WEIGHTS, "visual_projection.weight [20, 23] does not fit", "[24, 20]"),
    not_finite: (WEIGHTS, "visual_projection.weight has values that are infinite or not a number"),
    left_over: (WEIGHTS, "has vision_model.extra.weight, for which this CLIPModel has no place"),
    missing: (CONFIG, "lacks visual_projection.weight, which its config asks for (CLIPModel)"),
    missing_shard: ("second.safetensors", "does not exist"),
    shard_without_its_tensor: ("first.safetensors", "lacks text_model.other", INDEX),
    outside: (INDEX, "names '../outside.safetensors', which is no file of its folder"),
    no_index: (INDEX, "holds no JSON object"),
    only_a_pickle: ("pytorch_model.bin", "is a pickle", "python -c", "weights_only=True"),
    no_weights: (WEIGHTS, "does not exist"),
    no_config: (CONFIG, "does not exist"),
    no_json: (CONFIG, "is not JSON"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_damaged_folder_is_refused_by_name_and_leaves_nothing(fault, place, refusal):
    fault(place)
    said = refusal(f"huggingface:{place}")
    for words in FAULTS[fault]:
        assert words in said, said


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (dict(model_type="clipp"), ("model_type 'clipp'", "the nearest is clip")),
        (dict(model_type=None), ("model_type 'None'", "is not supported")),
        (dict(projection_dim="wide"), ("is no config of a clip",)),
        (
            dict(text_config={"hidden_act": "mish"}),
            ("text_config.hidden_act is 'mish', which is not supported; expected", "'quick_gelu'"),
        ),
        (dict(vision_config={"num_channels": 4}), ("vision_config.num_channels is 4", "only 3")),
        (dict(text_config={"num_attention_heads": 5}), ("not a multiple of", "heads (5)")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_that_is_not_supported_is_refused_with_its_key(keys, words, place, refusal):
    edited(**keys)(place)
    said = refusal(f"huggingface:{place}")
    assert CONFIG in said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (dict(depthwise_padding=[0]), "depthwise_padding [0] is not supported for images of 29"),
        (dict(in_channels=[32, 640, 8]), "in_channels is [32, 640, 8], and only [32, 640, 1280]"),
        (dict(pooling_type="max"), "pooling_type is 'max', and only 'mean'"),
    ],
    ids=["padding", "channels", "pooling"],
)
def test_an_efficientnet_that_is_not_supported_is_refused_with_its_key(
    keys, words, tmp_path, refusal
):
    folder = tmp_path / "efficientnet"
    shutil.copytree(GOLDEN / "efficientnet_0", folder)
    edited(**keys)(folder)
    said = refusal(f"huggingface:{folder}")
    assert CONFIG in said and words in said, said


def test_a_folder_that_is_none_and_a_format_that_is_none_are_refused(tmp_path, refusal):
    assert "is no folder" in refusal(f"huggingface:{tmp_path}/absent/deep")
    assert "one is FORMAT:DIR" in refusal(f"hugingface:{tmp_path}")


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ({}, "has no model_cfg"),
        ({"vision_cfg": {}, "text_cfg": {"hf_model_name": "xlm"}}, "hf_model_name 'xlm'"),
        ({"vision_cfg": {"timm_model_name": "convnext"}, "text_cfg": {}}, "'convnext'"),
        ({"vision_cfg": {"timm_model_name": "vit_pe_core_x"}, "text_cfg": {}}, "core_base_patch16"),
        ({"vision_cfg": {"ls_init_value": 0.1}, "text_cfg": {}, "embed_dim": 8}, "ls_init_value"),
    ],
)
def test_an_openclip_config_that_is_not_supported_is_refused(cfg, words, tmp_path, refusal):
    folder = tmp_path / "openclip"
    shutil.copytree(GOLDEN / "openclip_vit_0", folder)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg} if cfg else {}))
    said = refusal(f"openclip:{folder}")
    assert words in said and "open_clip_config.json" in said, said


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("meter_0", dict(vit="swin_base_patch4"), "vit 'swin_base_patch4' is not supported"),
        ("meter_0", dict(max_text_len=40), "position_embeddings.weight .* does not fit its config"),
        ("meter_1", {}, "answers.txt: does not exist; a file with the answers of vqa_classifier"),
        ("meter_0", dict(num_top_layer=3), "lacks cross_modal_image_layers.2"),
        ("albef_0", dict(bert_config="configs/config_bert.json"), "lacks bert_config.hidden_size"),
        ("clip_0", {}, "has the tensors of no supported architecture; supported are meter, albef"),
    ],
)
def test_a_layout_of_released_code_that_is_not_supported_is_refused(name, changes, words, tmp_path):
    family("meter").prepare()
    folder = tmp_path / "original"
    shutil.copytree(GOLDEN / name, folder, ignore=shutil.ignore_patterns("answers.txt"))
    found = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**found, **changes}))
    with pytest.raises(CheckpointError, match=f"{folder}.*{words}"):
        read_public(f"original:{folder}").variables()


def test_an_npz_with_pickled_objects_or_cut_short_is_refused(tmp_path, refusal):
    pickled, whole, cut = (tmp_path / f"{name}.npz" for name in ("pickled", "whole", "cut"))
    np.savez(pickled, **{"params/t": np.array([{}], dtype=object)})
    shutil.copy(GOLDEN / "big_vision_0" / "weights.npz", whole)
    cut.write_bytes(whole.read_bytes()[:-500])
    assert "params/t is a pickled object" in refusal(f"big_vision:{pickled}")
    assert "is truncated" in refusal(f"big_vision:{cut}")
    np.savez(pickled, other=np.zeros(3, np.float32))
    assert "lacks img/embedding/kernel" in refusal(f"big_vision:{pickled}")
    assert "is a folder, expected an .npz" in refusal(f"big_vision:{tmp_path}")


def test_a_folder_that_exists_is_not_written_over(place, tmp_path, refusal):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").write_text("precious")
    assert f"{kept} exists; choose another folder" in refusal(f"huggingface:{place}", to=kept)
    assert (kept / "mine.txt").read_text() == "precious"


def test_a_whole_folder_is_converted(place, tmp_path):
    """Without a fault, what the tests above damage is read."""
    assert convert.main([f"--from=huggingface:{place}", f"--to={tmp_path}/result"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "result"]


def test_a_scale_that_published_files_lack_is_that_of_their_config(tmp_path):
    folder = tmp_path / "tips"
    shutil.copytree(GOLDEN / "tipsv2_0", folder)
    changed(folder, temperature=None)
    public = read_public(f"huggingface:{folder}")
    found = public.variables()["params"]["objectives_contrastive"]["log_scale"]
    np.testing.assert_allclose(found, np.log(1 / 0.4), rtol=1e-6)


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that refuses everything."""

    def refuse(self):
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET = do_HEAD = do_PUT = refuse

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def hub():
    """The address of a `Hub`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_hub_that_refuses_an_upload_leaves_the_folder_whole(
    place, tmp_path, monkeypatch, capsys, hub
):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    api = huggingface_hub.HfApi
    monkeypatch.setattr(
        huggingface_hub, "HfApi", lambda: api(endpoint=hub, token="hf_none", library_name="test")
    )
    run, out = tmp_path / "run", tmp_path / "out"
    convert.main([f"--from=huggingface:{place}", f"--to={run}"])
    capsys.readouterr()
    status, said = leave(
        [f"--from={run}", f"--to=huggingface:{out}", "--push-to-hub=me/mine"], monkeypatch, capsys
    )
    assert status != 0 and said.count("\n") == 1
    assert "me/mine was not uploaded" in said and f"`hf upload me/mine {out}`" in said
    assert {CONFIG, WEIGHTS, "tokenizer.json", "README.md"} <= {path.name for path in out.iterdir()}


def test_an_upload_gives_the_hub_the_folder_that_was_written(place, tmp_path, monkeypatch, capsys):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    class Api:
        def create_repo(self, name, **options):
            asked.append(("create", name, options))
            return f"https://hub/{name}"

        def upload_folder(self, **options):
            asked.append(("upload", options["repo_id"], sorted(os.listdir(options["folder_path"]))))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    run, out = tmp_path / "run", tmp_path / "out"
    convert.main([f"--from=huggingface:{place}", f"--to={run}"])
    convert.main([f"--from={run}", f"--to=huggingface:{out}", "--push-to-hub=me/mine"])
    assert [entry[:2] for entry in asked] == [("create", "me/mine"), ("upload", "me/mine")]
    assert asked[0][2] == {"exist_ok": True} and CONFIG in asked[1][2]
    assert "uploaded to https://hub/me/mine" in capsys.readouterr().out


def test_flags_that_have_no_effect_are_refused(place, tmp_path, monkeypatch, capsys):
    for flag in ("--step=1", "--ema=yes", "--license=mit", "--push-to-hub=a/b"):
        status, said = leave(
            [f"--from=huggingface:{place}", f"--to={tmp_path}/run", flag], monkeypatch, capsys
        )
        name = flag.split("=")[0]
        assert status == 2 and f"{name}: has no effect" in said and said.count("\n") == 1, said
