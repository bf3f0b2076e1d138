"""Convert a public checkpoint into a workdir, or a workdir into a public checkpoint.

python -m vlp_jax.convert --from=huggingface:DIR_OR_NAME --to=DIR
python -m vlp_jax.convert --from=openclip:DIR_OR_NAME --to=DIR
python -m vlp_jax.convert --from=big_vision:FILE.npz --to=DIR --tokenizer=FOLDER
  writes a workdir with one checkpoint, which evaluation, `vlp_jax.load`, `inspect` and
  --config.pretrained.NAME.workdir=DIR take as that of a run.
python -m vlp_jax.convert --from=DIR --to=huggingface:DIR [--license=mit]
python -m vlp_jax.convert --from=DIR --to=openclip:DIR
  writes what transformers and OpenCLIP load: weights, config, tokenizer, preprocessing and a model
  card. --push-to-hub=OWNER/NAME uploads it.

Weights are read from safetensors and npz files alone. Nothing is left of a conversion that fails.
"""

import contextlib
import ctypes
from typing import TYPE_CHECKING

from vlp_jax.command_line import Flags, run_entry_point
from vlp_jax.errors import ConfigError
from vlp_jax.reporting import report

if TYPE_CHECKING:
    from vlp_jax.weights.public import PublicModel

M_ARENA_MAX = -8  # of malloc.h


def main(arguments: list[str]) -> int:
    """Converts as the flags say.

    Raises:
      UserError: anything that the user can fix.
    """
    flags = Flags(prog="convert", description=__doc__)
    flags.add_argument("--from", dest="origin", help="FORMAT:DIR or a workdir")
    flags.add_argument("--to", help="a workdir to write, or FORMAT:DIR")
    flags.add_argument("--tokenizer", help="as data.text.tokenizer, in place of the checkpoint's")
    flags.add_argument("--step", type=int, help="of a workdir: which checkpoint")
    flags.add_argument(
        "--ema", choices=("auto", "yes", "no"), help="of a workdir: averaged parameters"
    )
    flags.add_argument("--license", help="of an exported model, as in its model card")
    flags.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", help="upload an exported folder to the hub"
    )
    flags.add_argument("--components", default="", help="as for python -m vlp_jax.inspect")
    given = flags.parse(arguments)
    if given.origin is None or given.to is None:
        missing = "--from" if given.origin is None else "--to"
        raise ConfigError(f"{missing} is missing; see python -m vlp_jax.convert --help")
    use_few_arenas()
    from vlp_jax.weights.public import is_public

    inwards, outwards = is_public(given.origin), is_public(given.to)
    if inwards == outwards:
        raise ConfigError(
            "--from and --to: one is FORMAT:DIR, such as huggingface:DIR, and the other a workdir"
        )
    of_runs = ("step", "ema", "license", "push_to_hub")
    for name in of_runs if inwards else ("tokenizer",):
        if getattr(given, name) is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')}: has no effect with --from={given.origin}"
            )
    if inwards:
        convert_in(given.origin, given.to, given.tokenizer)
    else:
        components = tuple(name for name in given.components.split(",") if name)
        ema = {"auto": None, None: None, "yes": True, "no": False}[given.ema]
        convert_out(given.origin, given.to, given.step, ema, given.license, components)
        if given.push_to_hub:
            from vlp_jax.weights.upload import upload

            report(f"uploaded to {upload(given.to.partition(':')[2], given.push_to_hub)}")
    return 0


def use_few_arenas() -> None:
    """Lets threads of glibc's allocator use the memory that others have freed: many gigabytes of
    arrays come and go."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def convert_in(origin: str, folder: str, tokenizer: str | None) -> None:
    """Writes a workdir from a public checkpoint.

    Raises:
      UserError: it cannot be read or written.
    """
    from vlp_jax.weights.checkpoint import write_checkpoint
    from vlp_jax.weights.files import check_absent
    from vlp_jax.weights.public import read_public

    check_absent(folder)
    public = read_public(origin, tokenizer)
    facts = facts_of(public)
    preprocessor = public.preprocessor  # before the weights are read
    write_checkpoint(folder, public.config, preprocessor, public.variables(), facts)
    report(
        f"{folder}: {public.family.title} from {origin}, {len(facts['tensors'])} tensors, "
        f"{len(public.shapes)} variables; {', '.join(kinds_of(facts))}"
    )


def facts_of(public: "PublicModel") -> dict:
    """The report of a conversion: which tensors made which of our variables, and how."""
    rules = public.rules
    return {
        "from": public.place,
        "family": public.family.title,
        "tensors": {
            public.names[name]: {"makes": list(rule.ours), "how": rule.kind}
            for rule in rules
            for name in rule.theirs
        },
    }


def kinds_of(facts: dict) -> list[str]:
    """How many tensors were rearranged in which way, in words."""
    counts: dict[str, int] = {}
    for entry in facts["tensors"].values():
        counts[entry["how"]] = counts.get(entry["how"], 0) + 1
    return [f"{count} {how}" for how, count in counts.items()]


def convert_out(
    workdir: str,
    place: str,
    step: int | None,
    ema: bool | None,
    license_: str | None,
    components: tuple[str, ...],
) -> None:
    """Writes a public checkpoint from a workdir.

    Raises:
      UserError: it cannot be read or written, or the format has no such model.
    """
    from vlp_jax.loading import load
    from vlp_jax.training.restore import find_step
    from vlp_jax.weights.card import model_card
    from vlp_jax.weights.export import export

    step = find_step(workdir, step)
    model, variables, preprocessor = load(workdir, step, ema, components=components)
    card = model_card(workdir, step, model.config, license_, place)
    exported = export(place, model.config, preprocessor, variables, card)
    left = f"; left out: {', '.join(exported.left)}" if exported.left else ""
    report(
        f"{place}: {exported.family.title} from {workdir}, step {step}, "
        f"{sum(len(rule.theirs) for rule in exported.rules)} tensors{left}"
    )


if __name__ == "__main__":
    run_entry_point(main)
