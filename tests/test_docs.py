"""README and docs/: generated pages, links, files, keys and flags that are named there exist."""

import itertools
import pathlib
import re
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))

import make_config_keys  # noqa: E402
from make_config_keys import Experiment, has_key  # noqa: E402

from vlp_jax.config import base, load_config  # noqa: E402
from vlp_jax.config.describe import comments, sections  # noqa: E402

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "launch/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
GENERATED = {
    "config_keys.md",
    "recipes.md",
    "weights_compared.md",
}  # whose sources are checked elsewhere
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def slugs(page):
    """The fragments of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_page_of_config_keys_is_what_its_script_writes():
    """To accept a change: python docs/make_config_keys.py."""
    assert (ROOT / "docs/config_keys.md").read_text() == make_config_keys.text()


def test_the_page_of_config_keys_has_every_key_of_a_config():
    written = set(re.findall(r"^\| `([\w.]+)` \|", make_config_keys.text(), flags=re.M))

    def leaves(tree, path=""):
        for key, value in tree.items():
            yield from (
                leaves(value, f"{path}{key}.")
                if isinstance(value, dict) and value
                else [f"{path}{key}"]
            )

    assert {
        re.sub(r"^writers\.\w+", "writers.NAME", key) for key in leaves(base().to_dict())
    } - written == set()
    assert {
        "objectives.NAME.queue",
        "evaluators.NAME.tasks.NAME.num_beams",
        "model.fusion.hops",
        "model.decoder.attention_width",
        "data.targets.NAME.agreeing",
    } <= written


def test_comments_above_and_behind_a_field_are_its_meaning():
    found = comments(make_config_keys.hints_of(Experiment)["data"])
    assert found["batch_size"] == "examples per step, over all devices and hosts"
    assert found["workers"].startswith("Processes that decode") and found["workers"].endswith(
        "(data/cores.py)"
    )


def test_keys_that_there_are_are_known_and_others_are_not():
    for key in (
        "steps",
        "data.train.source",
        "objectives.NAME.weight",
        "objectives.any.queue",
        "model.*.saved",
        "evaluators.NAME",
        "data.targets.answer.classes",
        "stages.joint.steps",
        "data.train.mixture.web.caption_fields.alt",
    ):
        assert has_key(key), key
    for key in (
        "step",
        "data.train.sources",
        "objectives.NAME.wait",
        "model.*.nothing",
        "evaluators.NAME.task",
        "data.workers.x",
    ):
        assert not has_key(key), key


@pages
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not fragment or fragment in slugs(file), target
        if page.parent.name == "docs":  # the site has no others
            assert file.parent == page.parent, target


@pages
def test_files_that_are_named_exist(page):
    if page.name in GENERATED:
        return
    text = page.read_text()
    named = set(
        re.findall(
            r"(?<![\w/.-])(?:configs|docs|launch|tests|benchmarks|vlp_jax|\.ci|\.github)/[\w/.-]*\w",
            text,
        )
    )
    for quoted in re.findall(r"`([^`\s]+)`", text):
        if re.fullmatch(
            r"[\w.-]+(/[\w.-]+)+\.(py|md|sh|json|toml|yml|yaml)", quoted
        ) and not quoted.startswith(OTHERS):
            named.add(quoted)
    missing = [
        name
        for name in named
        if not (ROOT / name).exists() and not (ROOT / "vlp_jax" / name).exists()
    ]
    assert not missing, missing


# files of other repositories, and of data
OTHERS = ("src/open_clip_train/", "big_vision/", "images/")


@pages
def test_flags_and_keys_that_are_named_exist(page):
    """`--config.KEY=` anywhere but in an error, and in code spans what begins with a section's
    name."""
    text = re.sub(r"^    config error: .*$", "", page.read_text(), flags=re.M)
    text = (
        text
        if page.name != "extending.md"
        else re.sub(r"`--config\.objectives\.NAME\.t=3`", "", text)
    )  # of a class of one's own
    keys = set(re.findall(r"--config\.([\w.*]+)", text))
    sections = tuple(f"{name}." for name in make_config_keys.hints_of(Experiment))
    for span in re.findall(r"`([^`]+)`", text) if page.name not in GENERATED else ():
        key = re.match(r"[\w.*]+", span)
        if (
            key
            and key.group().startswith(sections)
            and not re.search(r"\.(py|jsonl?)$", span.partition("=")[0])
        ):
            keys.add(key.group().rstrip("."))
    unknown = sorted(key for key in keys if key not in ("KEY", "section.key") and not has_key(key))
    assert not unknown, unknown


@pages
def test_configs_that_are_named_exist(page):
    if page.name in GENERATED:
        return
    for name in set(re.findall(r"--config=([\w/]+(?:\.py)?)", page.read_text())) - {
        "FILE",
        "NAME",
        "MINE.py",
        "my_project/config.py",
    }:
        assert (ROOT / "configs" / f"{pathlib.Path(name).stem}.py").exists(), name


def test_every_kind_of_a_component_is_in_the_pages():
    text = "".join(
        page.read_text()
        for page in sorted((ROOT / "docs").glob("*.md"))
        if page.name not in GENERATED
    )
    kinds = {
        kind
        for each in sections(Experiment)
        if each.kind and ":" not in each.kind
        for kind in [each.kind]
    }
    assert len(kinds) > 30
    assert not [
        kind for kind in sorted(kinds) if f"`{kind}`" not in text and f'kind="{kind}"' not in text
    ]


def test_lines_and_tables_of_the_readme():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 170
    linked = set(re.findall(r"\(configs/(\w+)\.py\)", "\n".join(lines)))
    assert linked == {path.stem for path in (ROOT / "configs").glob("*.py")}


@pages
def test_lines_of_prose_are_at_most_132_columns(page):
    lines = page.read_text().splitlines()
    assert not [
        line
        for line in lines
        if len(line) > 132 and " " in line.strip() and not line.startswith("|")
    ]


SPANS = r"(?:`[^`]+`(?:, | or )?)+"


def valued_keys():
    """(key, value) of the tables for those who come from elsewhere, "`KEY`, `KEY` = `VALUE`,
    `VALUE`" and "`KEY=VALUE`"."""
    for name in ("from_open_clip", "from_big_vision"):
        text = (ROOT / f"docs/{name}.md").read_text()
        for keys, values in re.findall(rf"({SPANS}) = ({SPANS})", text):
            yield from itertools.product(
                re.findall(r"`([^`]+)`", keys), re.findall(r"`([^`]+)`", values)
            )
        for key, value in re.findall(r"`(\w+\.[\w.]+)=([^`]+)`", text):
            if value not in ("K", "folder:DIR", "tfds:DIR/SPLIT"):
                yield key, value


def test_values_that_are_named_for_keys_are_read():
    """As overrides of clip_b16, with a set of images to evaluate on."""
    pairs = [(key, value) for key, value in valued_keys() if has_key(key)]
    assert {
        ("optimizer.schedule.kind", "warmup_stable_decay"),
        ("data.images.resize", "letterbox"),
        ("evaluators.NAME.tasks.zero_shot.templates", "imagenet"),
        ("optimizer.decay_coupling", "schedule"),
    } <= set(pairs)
    for key, value in pairs:
        key = key.replace("objectives.NAME", "objectives.contrastive").replace(
            "evaluators.NAME", "evaluators.imagenet"
        )
        load_config("clip_b16", [("evaluators.imagenet.source", "folder:DIR"), (key, value)])


def test_every_page_is_in_the_site_s_navigation():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def files(entries):
        for entry in entries:
            value = next(iter(entry.values())) if isinstance(entry, dict) else entry
            yield from files(value) if isinstance(value, list) else [value]

    assert sorted(files(site["nav"])) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_workflow_runs_every_tier_of_ci():
    """Each `python -m pytest` line of .ci/run is a step of the workflow too."""
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    lines = [
        line.partition("&& ")[2] or line
        for line in (ROOT / ".ci/run").read_text().splitlines()
        if "python -m pytest" in line
    ]
    assert lines and all(line in workflow for line in lines)
