"""The official SDK (`comfy-sdk`) against a real server, without anything between them."""

import io

import pytest

from tests.fakes.server_process import ServerProcess

pytestmark = pytest.mark.slow
comfy_sdk = pytest.importorskip("comfy_sdk")


def picture(colour):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(file, "PNG")
    return file.getvalue()


def test_the_official_sdk_runs_a_job_and_fetches_the_picture(tmp_path, monkeypatch):
    from PIL import Image

    with ServerProcess(tmp_path) as server, monkeypatch.context() as patch:
        patch.setenv("COMFY_BASE_URL", server.url)
        with comfy_sdk.Comfy() as client:
            workflow = client.workflows.from_json({
                "1": {"class_type": "LoadImage", "inputs": {}},
                "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
                "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "v2/sdk"}},
            })
            asset = client.assets.from_bytes(picture((255, 0, 0)), filename="in.png")
            workflow.set_input("1", "image", asset)
            job = client.submit(workflow, idempotency_key="one", metadata={"run": "7"})
            assert client.submit(workflow, idempotency_key="one", metadata={"run": "7"}).id == job.id
            with pytest.raises(comfy_sdk.ComfyError) as reused:
                client.submit(workflow, idempotency_key="one")
            assert reused.value.code == "idempotency_key_reuse"

            kinds = [type(event).__name__ for event in job.events()]
            assert kinds[0] == kinds[-1] == "StatusChange" and "OutputReady" in kinds
            (output,) = job.result().outputs
            body = output.to_bytes()
            with Image.open(io.BytesIO(body)) as made:
                assert made.size == (24, 16) and made.getpixel((5, 5)) == (0, 255, 255)
            assert output.to_bytes(range=(1, 3)) == body[1:4] and output.size_bytes == len(body)
            assert output.get_download_url().url.startswith(server.url)

            assert job.metadata == {"run": "7"}
            assert [one.id for one in client.list_jobs(metadata={"run": "7"})] == [job.id]
            assert client.jobs.get(job.id).get_workflow().graph["1"]["inputs"]["image"].startswith("assets/")

            missing = {"class_type": "LoadImage", "inputs": {"image": "none.png"}}
            broken = client.workflows.from_json({"1": missing})
            with pytest.raises(comfy_sdk.ComfyError) as refused:
                client.submit(broken)
            assert refused.value.code == "invalid_workflow"
            asset.delete()
            with pytest.raises(comfy_sdk.ComfyError) as gone:
                client.assets.get(asset.id or job.id)
            assert gone.value.code == "not_found"
