"""Hidden inputs: filled by the server, never from the prompt."""

from comfy_execution.dynamic_prompt import DynamicPrompt
from tests.comfy_execution.rig import make, node

KINDS = {
    "graph": "PROMPT",
    "dynamic": "DYNPROMPT",
    "info": "EXTRA_PNGINFO",
    "id": "UNIQUE_ID",
    "token": "AUTH_TOKEN_COMFY_ORG",
    "key": "API_KEY_COMFY_ORG",
    "source": "COMFY_USAGE_SOURCE",
}


def echo(rig, hidden):
    seen = {}
    rig.add(
        Echo=make(lambda self, **all: seen.update(all) or {}, {}, hidden=hidden, returns=(), OUTPUT_NODE=True)
    )
    return seen


def test_every_kind_of_hidden_input_is_filled(rig):
    seen = echo(rig, KINDS)
    prompt = {"1": node("Echo")}
    rig.run(
        prompt,
        extra_data={
            "extra_pnginfo": {"workflow": {}},
            "auth_token_comfy_org": "T",
            "api_key_comfy_org": "K",
            "comfy_usage_source": "test",
        },
    )
    assert seen["graph"] is prompt
    assert isinstance(seen["dynamic"], DynamicPrompt)
    assert seen["info"] == {"workflow": {}}
    assert (seen["id"], seen["token"], seen["key"], seen["source"]) == ("1", "T", "K", "test")


def test_what_was_not_sent_along_is_none(rig):
    seen = echo(rig, {"info": "EXTRA_PNGINFO", "token": "AUTH_TOKEN_COMFY_ORG"})
    rig.run({"1": node("Echo")})
    assert seen == {"info": None, "token": None}


def test_a_prompt_cannot_set_a_hidden_input(rig):
    seen = echo(rig, {"id": "UNIQUE_ID"})
    rig.run({"1": node("Echo", id="forged")})
    assert seen["id"] == "1"


def test_a_hidden_kind_that_nobody_knows_is_left_to_the_prompt(rig):
    seen = echo(rig, {"secret": "SOMETHING"})
    rig.run({"1": node("Echo", secret="given")})
    assert seen == {"secret": "given"}
