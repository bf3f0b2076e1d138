"""Time of re-ranking with encodings computed once, and with both towers run on each pair.

python benchmarks/rerank.py --workdir=RUN [--source=embedded:emoji/val_vendor] [--images=400]
    [--candidates=16]
  measures the task `rerank` of a trained run with a matching head on the first images of a set both
  ways, after a run of each that compiles, prints the seconds, and fails where a figure differs by
  more than 1e-6.
"""

import argparse
import time

from vlp_jax.data.sources.registry import open_source
from vlp_jax.evaluate import evaluation_layout
from vlp_jax.evaluators.context import TaskContext
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.rerank import RerankTaskConfig
from vlp_jax.loading import load
from vlp_jax.sharding.mesh import MeshConfig
from vlp_jax.training.evaluation import build_predictor


class First:
    """The first samples of a source."""

    def __init__(self, source, count):
        self.source, self.spec = source, source.spec
        self.count = min(count, len(source))

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        return self.source[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--source", default="embedded:emoji/val_vendor")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--candidates", type=int, default=16)
    given = parser.parse_args()
    layout = evaluation_layout(MeshConfig())
    model, variables, preprocessor = load(given.workdir, layout=layout)
    predictor = build_predictor(model.module, preprocessor, layout)
    context = TaskContext(
        EvaluationSet(First(open_source(given.source), given.images)), predictor, variables
    )
    task, encoder = RerankTaskConfig(candidates=given.candidates), predictor.pair_encoder
    RerankTaskConfig(candidates=1).run(context)  # compiles, and embeds the images
    print(f"{len(context.data)} images, {given.candidates} candidates")
    results = {}
    for name, used in (("encoded once", encoder), ("each pair encoded", None)):
        predictor.pair_encoder = used
        if used is None:
            RerankTaskConfig(candidates=1).run(context)  # compiles
        start = time.monotonic()
        results[name] = task.run(context)
        print(f"{name:20} {time.monotonic() - start:.1f} s")
    first, second = results.values()
    largest = max(abs(first[key] - second[key]) for key in first)
    print(f"largest difference of a figure: {largest:.2g}")
    assert largest <= 1e-6


if __name__ == "__main__":
    main()
