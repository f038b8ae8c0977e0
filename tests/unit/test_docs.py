"""The pages hang together: links lead somewhere, the reference is that of the code, answers are near."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from bench.config.compose import compose, expand
from bench.config.keys import keys
from bench.grammar import VERBS, reference
from bench.report.reference import EXAMPLES, key_example
from tests.documentation import NOT_HERE, PAGES, README, ROOT, anchors, links, snippets

# what a newcomer asks, and the page and heading with the answer
QUESTIONS = {
    "how to run on two nodes": ("docs/two_nodes.md", "on-two-nodes"),
    "what MFU means here": ("docs/metrics.md", "what-mfu-means-here"),
    "why the interval is wide": ("docs/metrics.md", "why-is-the-interval-wide"),
    "how to add a GPU": ("docs/extend.md", "a-gpu-or-other-device"),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in links(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize(("page", "anchor"), QUESTIONS.values(), ids=QUESTIONS.keys())
def test_the_answer_is_within_two_clicks_of_the_readme(page: str, anchor: str) -> None:
    first = {(README.parent / target.partition("#")[0]).resolve() for target in links(README)}
    second = {(file.parent / target.partition("#")[0]).resolve() for file in first if file.suffix == ".md" for target in links(file)}
    assert ROOT / page in first | second
    assert anchor in anchors(ROOT / page)


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"(\w+\.md)", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {page.name for page in PAGES} - {"README.md"}


def test_the_reference_is_that_of_the_code() -> None:
    """Write it anew with scripts/reference."""
    assert (ROOT / "docs" / "reference.md").read_text() == reference()


def test_every_verb_has_an_example() -> None:
    assert set(VERBS) - {"worker"} <= set(EXAMPLES)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_where_the_table_says_and_does_what_it_says(verb: str) -> None:
    function = getattr(import_module(f"bench.verbs.{VERBS[verb].module}"), VERBS[verb].function)
    assert function.__doc__ == VERBS[verb].summary


def test_every_key_has_a_type_and_says_what_it_means() -> None:
    for key in keys():
        assert key.kind, key.path
        assert key.meaning, f"{key.path}: comment it in conf/"


def test_the_examples_of_all_keys_compose_together() -> None:
    chosen = [key_example(key) for key in keys() if not key.path.endswith(".name") and key.path != "plan.data_parallel_size"]
    assert compose(["model=tiny", *chosen]).gate == "-3%"


def test_no_reason_outlives_its_command() -> None:
    texts = [snippet.text for page in PAGES for snippet in snippets(page)]
    assert [pattern for pattern in NOT_HERE if not any(re.search(pattern, text) for text in texts)] == []


def overrides_of(text: str) -> set[tuple[str, ...]]:
    """The overrides of every `bench` command in a text, each combination of a sweep for itself."""
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("bench ")]
    return {one for words in lines for one in expand([word for word in words if "=" in word])}


@pytest.mark.slow  # twenty seconds
def test_every_command_composes_whether_it_is_run_or_not() -> None:
    own = next(pattern for pattern, reason in NOT_HERE.items() if "reader's own" in reason)
    texts = [s.text for page in PAGES for s in snippets(page) if s.language == "sh" and not re.search(own, s.text)]
    for overrides in sorted(set().union(*map(overrides_of, texts))):
        compose(overrides)


def test_most_commands_are_run() -> None:
    everything = [snippet for page in PAGES for snippet in snippets(page)]
    assert len(everything) > 50
    assert sum(not snippet.reason for snippet in everything) > len(everything) / 2
