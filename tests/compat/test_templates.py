"""The official workflow templates: how many have every node class, and what validation says of them."""

from __future__ import annotations

import json

import pytest

from tests.compat import templates

pytestmark = pytest.mark.skipif(
    not templates.package_files(), reason="the packages comfyui-workflow-templates are not installed"
)


@pytest.fixture(scope="module")
def declared():
    return templates.declarations_here()


@pytest.fixture(scope="module")
def converted(declared):
    found = templates.read_templates()
    return [(template, templates.convert(template, declared)) for template in found]


def test_enough_open_templates_have_every_node_class(converted):
    found = templates.shares([template for template, _ in converted], were_validated=False)
    assert found["all"].templates > 200
    assert templates.missed_targets(found) == []


def test_links_of_converted_templates_lead_to_nodes_of_the_prompt(converted):
    for template, prompt in converted:
        assert prompt, template.name
        for node in prompt.values():
            for value in node["inputs"].values():
                if isinstance(value, list):
                    assert value[0] in prompt, template.name


def test_a_missed_target_is_a_sentence_with_both_numbers():
    found = {"image": templates.Share(10, 9, None), "all": templates.Share(10, 6, None)}
    assert templates.missed_targets(found) == [
        "90.0% of the templates of kind 'image' have every node class, the target is 95%."
    ]


@pytest.mark.parametrize(
    ("error", "file"),
    [
        (
            {"type": "value_not_in_list", "extra_info": {"received_value": "a/b.safetensors"}},
            "a/b.safetensors",
        ),
        ({"type": "value_not_in_list", "extra_info": {"received_value": "a.png"}}, "a.png"),
        ({"type": "value_not_in_list", "extra_info": {"received_value": "euler"}}, None),
        (
            {
                "type": "custom_validation_failed",
                "details": "image - Invalid image file: a.png. Choose another.",
            },
            "a.png",
        ),
        ({"type": "custom_validation_failed", "details": "steps - too many"}, None),
        ({"type": "required_input_missing", "details": "image"}, None),
    ],
)
def test_files_that_are_not_here_are_told_from_faults(error, file):
    assert templates.missing_file(error) == file


@pytest.mark.slow
def test_templates_with_every_class_pass_validation_but_for_files(tmp_path):
    options = templates.parse(["--kind", "image", "--json", str(tmp_path / "report.json")])
    said: list[str] = []
    found, shares = templates.report(options, said.append)
    assert shares["image"].valid is not None and shares["image"].valid >= 0.5 * shares["image"].templates
    rows = json.loads((tmp_path / "report.json").read_text())
    assert [row["name"] for row in rows] == [template.name for template in found]
    assert said[0].startswith("kind    templates  every class        no validation error")
