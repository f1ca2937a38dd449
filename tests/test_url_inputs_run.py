"""Real loader nodes run on a picture, a sound and a video that a prompt names by URL."""

import base64
import io
import wave

import pytest

from tests.fakes.origin import Origin
from tests.fakes.server_process import ServerProcess

pytestmark = pytest.mark.slow


def png():
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 8), (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


def wav(count=4000):
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\x20" * count)
    return file.getvalue()


def mp4(frames=5):
    import av
    from PIL import Image

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for _ in range(frames):
            video.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 16), (0, 0, 255)))))
        video.mux(stream.encode())
    return file.getvalue()


def test_real_loaders_take_what_was_fetched(tmp_path):
    from PIL import Image

    with Origin() as origin, ServerProcess(tmp_path, "--input-hosts", "127.0.0.1") as server:
        graph = {
            "1": {"class_type": "LoadImage", "inputs": {"image": origin.put("/a.jpg", png())}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "picture"}},
            "3": {"class_type": "LoadAudio", "inputs": {"audio": origin.put("/b", wav())}},
            "4": {"class_type": "SaveAudio", "inputs": {"audio": ["3", 0], "filename_prefix": "sound"}},
            "5": {"class_type": "LoadVideo",
                  "inputs": {"file": "data:video/mp4;base64," + base64.b64encode(mp4()).decode()}},
            "6": {"class_type": "GetVideoComponents", "inputs": {"video": ["5", 0]}},
            "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "frame"}},
        }  # fmt: skip
        entry = server.run_prompt(graph, seconds=120)
        assert entry["status"]["status_str"] == "success", entry["status"]
        assert entry["prompt"][2]["5"]["inputs"]["file"].startswith("assets/")
        with Image.open(tmp_path / "output" / "picture_00001_.png") as picture:
            assert picture.size == (16, 8) and picture.getpixel((3, 3)) == (255, 0, 0)
        frames = sorted((tmp_path / "output").glob("frame_*.png"))
        assert len(frames) == 5
        with Image.open(frames[0]) as frame:
            assert frame.size == (32, 16) and frame.getpixel((9, 9))[2] > 200 > 60 > frame.getpixel((9, 9))[0]
        import av

        (sound,) = (tmp_path / "output").glob("sound_*.flac")
        with av.open(str(sound)) as opened:
            assert sum(frame.samples for frame in opened.decode(audio=0)) == 4000
