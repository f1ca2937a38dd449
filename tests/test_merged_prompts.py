"""Real prompts that wait are sampled as one batch, and each saves the picture that it would save alone."""

import copy
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.fakes.server_process import ROOT, ServerProcess

DEMO_MODEL = ROOT / "tests/data/demo_shapes.safetensors"
DEMO_PROMPT = json.loads((ROOT / "tests/data/demo_prompt.json").read_text(encoding="utf-8"))
WISHES = [("a red circle", 1), ("a blue square", 2), ("a green triangle", 3), ("a red circle", 4),
          ("a blue circle", 5)]  # fmt: skip


def prompt(text, seed, sampler="euler_ancestral", steps=4):
    graph = copy.deepcopy(DEMO_PROMPT)
    graph["6"]["inputs"]["text"] = text
    graph["3"]["inputs"].update(seed=seed, steps=steps, sampler_name=sampler)
    return graph


def picture(server, entry):
    (shown,) = [image for output in entry["outputs"].values() for image in output["images"]]
    place = f"/view?filename={shown['filename']}&subfolder={shown['subfolder']}&type={shown['type']}"
    with Image.open(io.BytesIO(server.request("GET", place)[1])) as image:
        return np.asarray(image.convert("RGB")).astype(int), json.loads(image.text["prompt"])


@pytest.mark.slow
def test_waiting_prompts_are_sampled_as_one_batch_and_save_their_own_pictures(tmp_path):
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    shutil.copy(DEMO_MODEL, tmp_path / "models/checkpoints")
    with ServerProcess(tmp_path, "--merge-requests", "4") as server:
        server.post_json("/depot/queue/pause", {})
        ids = [server.post_json("/prompt", {"prompt": prompt(*wish)})["prompt_id"] for wish in WISHES]
        server.post_json("/depot/queue/resume", {})
        entries = [server.wait_for_history(prompt_id) for prompt_id in ids]
        merged = server.get_json("/depot/cache")["merged"]
        assert merged["calls"] >= 1 and merged["prompts"] >= 2
        assert "merged_with" not in entries[1]["reasons"]["3"]
        assert entries[2]["reasons"]["3"] == {"reason": "cached", "merged_with": ids[1]}
        for wish, entry in zip(WISHES, entries):
            assert entry["status"]["status_str"] == "success", entry["status"]
            alone = server.run_prompt(prompt(*wish), cache="off")
            assert alone["reasons"]["3"] == {"reason": "not read"}
            found, said = picture(server, entry)
            assert said["6"]["inputs"]["text"] == wish[0], "a picture names the workflow that made it"
            assert abs(found - picture(server, alone)[0]).max() <= 1
