"""Over which devices a checkpoint is evaluated."""

import json
import pathlib

import jax
import pytest

from vlp_jax import evaluate, main
from vlp_jax.config import schema
from vlp_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[1]


def test_parameters_lie_as_in_training_or_whole_where_the_mesh_does_not_fit(tiny, tmp_path, monkeypatch, capsys):
    flags = tiny("data.train.source=synthetic:64?height=20&width=24", "steps=1", "mesh.data=2", "mesh.fsdp=4")
    assert main.main([f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={tmp_path}/run", *flags]) == 0
    load, held, metrics = evaluate.load, [], []

    def loaded(*arguments, **options):
        model, variables, preprocessor = load(*arguments, **options)
        largest = max(jax.tree.leaves(variables), key=lambda leaf: leaf.size)
        held.append(largest.size / largest.addressable_shards[0].data.size)
        return model, variables, preprocessor

    monkeypatch.setattr(evaluate, "load", loaded)
    for devices in (8, 6):
        monkeypatch.setattr(evaluate.jax, "device_count", lambda devices=devices: devices)
        capsys.readouterr()
        output = tmp_path / f"{devices}.json"
        assert evaluate.main([f"--workdir={tmp_path}/run", "--source=synthetic:24?height=20&width=24", f"--output={output}"]) == 0
        metrics.append(json.loads(output.read_text()))
        assert ("not as trained" in capsys.readouterr().err) == (devices == 6)
    assert held == [4, 1]
    assert metrics[0] == pytest.approx(metrics[1])


@pytest.mark.parametrize(("mesh", "shape"), [(schema.Mesh(), (8, 1, 1)), (schema.Mesh(data=1, fsdp=-1), (1, 8, 1)),
                                             (schema.Mesh(data=64, tensor=2), (4, 1, 2)), (schema.Mesh(fsdp=16), (8, 1, 1))])
def test_data_takes_the_devices_that_the_other_axes_leave(mesh, shape):
    assert tuple(evaluate.evaluation_layout(mesh).mesh.shape.values()) == shape


@pytest.mark.slow
def test_the_loss_on_held_out_captions_is_measured_and_captions_need_a_decoder(tmp_path, capsys):
    flags = ["--config.steps=1", "--config.data.batch_size=8", "--config.evaluators={}"]
    assert main.main([f"--config={ROOT}/configs/vit_gpt2.py:smoke", f"--workdir={tmp_path}/run", *flags]) == 0
    capsys.readouterr()
    assert evaluate.main([f"--workdir={tmp_path}/run", "--source=embedded:emoji/val_concept", "--evaluators=captions"]) == 0
    assert 4 < json.loads(capsys.readouterr().out)["caption_loss"] < 12  # ln 4096 is 8.3
    with pytest.raises(ConfigError, match="retrieval"):
        evaluate.main([f"--workdir={tmp_path}/run", "--source=embedded:emoji/val_concept", "--evaluators=retrieval"])
