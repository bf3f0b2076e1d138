"""The sections of a config by short names, for scripts and notebooks: `schema.Images()` is an
`ImagesConfig`.

Any section or component of this package is found, wherever it is declared: `schema.ViT`,
`schema.AdamW`, `schema.Data`.
"""

from typing import Any

from vlp_jax.config.describe import sections
from vlp_jax.config.registry import root_section


def __getattr__(name: str) -> Any:
    declared = {
        section.declaration.__name__: section.declaration for section in sections(root_section())
    }
    if f"{name}Config" not in declared:
        raise AttributeError(
            f"no section of a config is called {name!r}; there are {', '.join(__dir__())}"
        )
    return declared[f"{name}Config"]


def __dir__() -> list[str]:
    return sorted(
        {
            section.declaration.__name__.removesuffix("Config")
            for section in sections(root_section())
        }
        - {"Experiment"}
    )
