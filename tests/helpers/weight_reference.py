"""Tiny random models of other libraries, by which our reading and writing of weights is judged.

Each file in tests/weights/families is one architecture in one format:
  FORMAT: the format's name.
  build(variant): a random model of theirs, by PyTorch; variants differ in sizes and seed.
  inputs(model, rng): {name: array}, as we take them: images [B, H, W, 3], texts [B, L] with masks.
  outputs(model, inputs): {name: array}, what their model computes.
  save(model, folder): writes the model as they do.
  ours(model, variables, inputs): {name: array}, what our `vlp_jax.Model` computes.
  load(folder): (model, names that were missing or not used), where we write the format.
  prepare(): makes ours know of tiny sizes, where their config only names published ones.
Only `ours` and `prepare` may import JAX, and all others PyTorch, so that either works without the
other.
"""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
import types

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "weights" / "families"
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "weights"
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
START, END, PADDING = 57, 58, 59  # ids of a vocabulary of 60
VARIANTS, GOLDENS = 3, 2  # tried with PyTorch, and written as golden files


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a variant; all differ, so that no axis is taken for another."""

    image_size: int
    patch_size: int
    image_width: int
    image_heads: int
    image_depth: int
    image_mlp: int
    text_width: int
    text_heads: int
    text_depth: int
    text_mlp: int
    length: int
    embedding: int
    vocabulary: int = 60


SIZES = (
    Sizes(12, 4, 24, 3, 2, 48, 16, 2, 2, 40, 10, 20),
    Sizes(16, 8, 16, 2, 3, 40, 24, 3, 1, 56, 7, 12),
    Sizes(20, 4, 32, 4, 1, 56, 16, 4, 2, 36, 12, 28),
)


def family(name: str) -> types.ModuleType:
    """The reference of a family."""
    return importlib.import_module(name)


def perturb(model, seed: int):
    """Moves every parameter and running statistic, so that none is left at a zero or a one that
    would hide it; returns the model, in evaluation mode."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.2 * torch.randn(buffer.shape, generator=generator)
            if name.endswith("running_var"):
                buffer *= 0.5 + torch.rand(buffer.shape, generator=generator)
    return model.eval()


def draw_images(sizes: Sizes, rng: np.random.Generator, rows: int = 3) -> np.ndarray:
    """Normalised pixels [B, H, W, 3]."""
    return rng.normal(size=(rows, sizes.image_size, sizes.image_size, 3)).astype(np.float32)


def draw_texts(
    sizes: Sizes,
    rng: np.random.Generator,
    tokens: tuple[int, int, int] = (START, END, PADDING),
    words: tuple[int, int] = (0, START),
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask [B, L] of three texts: one as long as the row, one of half of it, an empty one.

    Args:
      sizes: those of the variant.
      rng: source of the draws.
      tokens: ids of start, end and padding.
      words: the first id of a word, and the one after the last.
    """
    start, end, padding = tokens
    lengths = sizes.length, max(3, sizes.length // 2), 2
    ids = np.full((3, sizes.length), padding, np.int32)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = [start, *rng.integers(*words, length - 2), end]
    return ids, np.arange(sizes.length) < np.array(lengths)[:, None]


def torch_images(inputs: dict):
    """The images as [B, 3, H, W] for PyTorch."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(inputs["image"].transpose(0, 3, 1, 2)))


def numbers(**tensors) -> dict[str, np.ndarray]:
    """Tensors of PyTorch as arrays."""
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}


def torch_texts(inputs: dict) -> dict:
    """Ids and mask as PyTorch's models take them."""
    import torch

    return dict(
        input_ids=torch.from_numpy(inputs["text"]).long(),
        attention_mask=torch.from_numpy(inputs["text_mask"]).long(),
    )


def torch_labels(text: np.ndarray, chosen: np.ndarray):
    """Ids of the tokens that a loss of transformers is of; -100 elsewhere."""
    import torch

    return torch.from_numpy(np.where(chosen, text, -100)).long()


def draw_masked(inputs: dict, rng: np.random.Generator, mask_id: int = START) -> dict:
    """The inputs with some of their words masked: `masked` and `chosen` [B, L]."""
    chosen = inputs["text_mask"] & (rng.random(inputs["text"].shape) < 0.5)
    chosen[:, 1] = True
    masked = np.where(chosen, mask_id, inputs["text"]).astype(np.int32)
    return {**inputs, "masked": masked, "chosen": chosen}


def seen(values, inputs: dict):
    """The values [B, L, ...] of real tokens, and 0 of padding."""
    return values * inputs["text_mask"][..., None]


def save_huggingface(model, folder: pathlib.Path) -> None:
    """`save_pretrained`."""
    model.save_pretrained(folder)


def load_huggingface(kind: str, folder: pathlib.Path):
    """A model of transformers, and the names that were missing or not used."""
    import transformers

    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    problems = [name for names in info.values() for name in names]
    return model.eval(), problems


def errors(found: dict, expected: dict) -> dict[str, float]:
    """{output: max|a - b| / max|b|}."""
    assert found.keys() >= expected.keys(), f"lacks {expected.keys() - found.keys()}"
    return {
        name: float(
            np.abs(np.asarray(found[name], np.float64) - value).max()
            / max(np.abs(value).max(), 1e-30)
        )
        for name, value in expected.items()
    }


def write_reference(name: str, variant: int, folder: pathlib.Path) -> None:
    """Writes a tiny model of theirs with its inputs and outputs."""
    reference = family(name)
    folder.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.manual_seed(variant)  # of the library's own initialisation
    model = reference.build(variant)
    inputs = reference.inputs(variant, np.random.default_rng(variant))
    reference.save(model, folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    outputs = reference.outputs(model, inputs)
    np.savez_compressed(
        folder / "golden.npz",
        **{f"input_{key}": value for key, value in inputs.items()},
        **{f"output_{key}": value for key, value in outputs.items()},
    )


def check_written_again(name: str, folder: pathlib.Path) -> None:
    """Checks, with their library, that it loads what we wrote to `FOLDER/again`, with no name
    missing or not used, and that it computes the same."""
    reference = family(name)
    model, problems = reference.load(folder / "again")
    assert not problems, problems
    inputs, expected = read_golden(folder)
    for key, error in errors(reference.outputs(model, inputs), expected).items():
        assert error < 1e-5, (key, error)


def read_golden(folder: pathlib.Path) -> tuple[dict, dict]:
    """(inputs, outputs) of a golden folder."""
    with np.load(folder / "golden.npz") as arrays:
        return tuple(
            {
                key.removeprefix(prefix): arrays[key]
                for key in arrays.files
                if key.startswith(prefix)
            }
            for prefix in ("input_", "output_")
        )


def place_of(name: str, folder: pathlib.Path) -> str:
    """FORMAT:DIR of a saved model."""
    reference = family(name)
    getattr(reference, "prepare", lambda: None)()
    file = getattr(reference, "FILE", "")
    return f"{reference.FORMAT}:{folder / file}"


def write_json(path: pathlib.Path, tree: dict) -> None:
    """Writes JSON."""
    path.write_text(json.dumps(tree, indent=1))
