"""Where files live: names stay inside their folders, lists follow the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

import folder_paths
from comfy.cli_args import args
from utils.extra_config import load_configured, load_extra_path_config


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A base folder of its own; the program's folders are set again afterwards."""
    folder_paths.apply_arguments(Namespace(base_directory=str(tmp_path)))
    folder_paths.create_working_folders()
    yield tmp_path
    folder_paths.apply_arguments(args)


def put(file: Path, body: bytes = b"x") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body)
    return file


def test_the_import_loads_neither_torch_nor_pydantic_nor_the_depot() -> None:
    heavy = ("torch", "pydantic", "aiohttp", "PIL", "numpy")
    code = f"import sys, folder_paths; print([name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(folder_paths.__file__).parent,
    )
    assert printed.stdout.strip() == "[]"


def test_the_base_directory_moves_every_folder(base: Path) -> None:
    assert folder_paths.base_path == str(base)
    assert folder_paths.models_dir == str(base / "models")
    assert folder_paths.get_output_directory() == str(base / "output")
    assert folder_paths.get_input_directory() == str(base / "input")
    assert folder_paths.get_temp_directory() == str(base / "temp")
    assert folder_paths.get_user_directory() == str(base / "user")
    assert folder_paths.get_folder_paths("custom_nodes") == [str(base / "custom_nodes")]


def test_each_folder_can_be_given_on_its_own(base: Path) -> None:
    folder_paths.apply_arguments(
        Namespace(
            base_directory=str(base),
            models_directory=str(base / "m"),
            output_directory=str(base / "o"),
            input_directory=str(base / "i"),
            temp_directory=str(base / "t"),
            user_directory=str(base / "u"),
        )
    )
    assert folder_paths.get_folder_paths("loras") == [str(base / "m" / "loras"), str(base / "o" / "loras")]
    assert folder_paths.get_output_directory() == str(base / "o")
    assert folder_paths.get_input_directory() == str(base / "i")
    assert folder_paths.get_user_directory() == str(base / "u")
    assert folder_paths.get_temp_directory() == str(base / "t" / "temp"), (
        "a given folder itself is never emptied"
    )


def test_packs_see_the_same_table_object_after_the_command_line_was_read(base: Path) -> None:
    table, extensions = folder_paths.folder_names_and_paths, folder_paths.supported_pt_extensions
    folder_paths.apply_arguments(Namespace(base_directory=str(base)))
    assert folder_paths.folder_names_and_paths is table
    assert table["checkpoints"][1] is extensions


def test_the_folder_types_are_those_that_workflows_know() -> None:
    assert set(folder_paths.folder_names_and_paths) >= {
        "checkpoints",
        "configs",
        "loras",
        "vae",
        "text_encoders",
        "diffusion_models",
        "clip_vision",
        "style_models",
        "embeddings",
        "diffusers",
        "vae_approx",
        "controlnet",
        "gligen",
        "upscale_models",
        "latent_upscale_models",
        "custom_nodes",
        "hypernetworks",
        "photomaker",
        "classifiers",
        "model_patches",
        "audio_encoders",
        "datasets",
        "background_removal",
        "frame_interpolation",
        "geometry_estimation",
        "optical_flow",
        "detection",
    }


def test_setters_change_what_getters_say(base: Path) -> None:
    for name in ("output", "temp", "input", "user"):
        getattr(folder_paths, f"set_{name}_directory")(str(base / "other"))
        assert getattr(folder_paths, f"get_{name}_directory")() == str(base / "other")


@pytest.mark.parametrize(
    "name, kind", [("output", "output"), ("temp", "temp"), ("input", "input"), ("user", None)]
)
def test_http_reaches_three_folders_by_type(base: Path, name: str, kind: str | None) -> None:
    assert folder_paths.get_directory_by_type(name) == (str(base / kind) if kind else None)


def test_a_list_holds_the_files_with_a_models_extension_and_their_subfolders(base: Path) -> None:
    for name in ("b.safetensors", "a.ckpt", "sub/c.SafeTensors", "note.txt", ".git/d.safetensors"):
        put(base / "models" / "checkpoints" / name)
    put(base / "output" / "checkpoints" / "saved.safetensors")
    assert folder_paths.get_filename_list("checkpoints") == [
        "a.ckpt",
        "b.safetensors",
        "saved.safetensors",
        os.path.join("sub", "c.SafeTensors"),
    ]


def test_a_list_follows_the_disk(base: Path) -> None:
    folder = base / "models" / "loras"
    put(folder / "a.safetensors")
    assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
    put(folder / "sub" / "b.safetensors")
    assert len(folder_paths.get_filename_list("loras")) == 2
    time.sleep(0.02)  # the time of a folder has the grain of the kernel's clock
    (folder / "sub" / "b.safetensors").unlink()
    (folder / "sub").rmdir()
    assert folder_paths.get_filename_list("loras") == ["a.safetensors"]


def test_a_list_belongs_to_its_caller(base: Path) -> None:
    put(base / "models" / "loras" / "a.safetensors")
    folder_paths.get_filename_list("loras").clear()
    folder_paths.get_folder_paths("loras").clear()
    assert folder_paths.get_filename_list("loras") == ["a.safetensors"]


def test_the_cache_helper_keeps_a_list_for_one_block(base: Path) -> None:
    put(base / "models" / "loras" / "a.safetensors")
    with folder_paths.cache_helper:
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
        put(base / "models" / "loras" / "b.safetensors")
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
    assert folder_paths.get_filename_list("loras") == ["a.safetensors", "b.safetensors"]
    assert folder_paths.cache_helper.get("loras") is None


def test_recursive_search_gives_files_and_the_times_of_folders(base: Path) -> None:
    put(base / "tree" / "a.txt")
    put(base / "tree" / "skip" / "b.txt")
    put(base / "tree" / "deep" / "er" / "c.txt")
    files, times = folder_paths.recursive_search(str(base / "tree"), excluded_dir_names=["skip"])
    assert sorted(files) == ["a.txt", os.path.join("deep", "er", "c.txt")]
    assert set(times) == {str(base / "tree"), str(base / "tree" / "deep"), str(base / "tree" / "deep" / "er")}
    assert times[str(base / "tree")] == os.path.getmtime(base / "tree")
    assert folder_paths.recursive_search(str(base / "nowhere")) == ([], {})


def test_recursive_search_follows_links(base: Path) -> None:
    put(base / "elsewhere" / "a.safetensors")
    (base / "tree").mkdir()
    (base / "tree" / "link").symlink_to(base / "elsewhere")
    assert folder_paths.recursive_search(str(base / "tree"))[0] == [os.path.join("link", "a.safetensors")]


def test_no_extensions_means_every_file() -> None:
    assert folder_paths.filter_files_extensions(["b.x", "a"], set()) == ["a", "b.x"]
    assert folder_paths.filter_files_extensions(["b.X", "a"], {".x"}) == ["b.X"]
    assert folder_paths.filter_files_extensions(["b.x", "a"], {""}) == ["a"]


def test_files_are_sorted_by_what_their_names_promise() -> None:
    files = ["a.png", "b.webp", "c.mp4", "d.wav", "e.fbx", "f", "g.unknown"]
    assert folder_paths.filter_files_content_types(files, ["image"]) == ["a.png", "b.webp"]
    assert folder_paths.filter_files_content_types(files, ["video", "audio"]) == ["c.mp4", "d.wav"]
    assert folder_paths.filter_files_content_types(files, ["model"]) == ["e.fbx"]


def test_the_first_folder_with_the_file_gives_its_path(base: Path) -> None:
    put(base / "models" / "clip" / "a.safetensors")
    assert folder_paths.get_full_path("clip", "a.safetensors") == str(
        base / "models" / "clip" / "a.safetensors"
    )
    put(base / "models" / "text_encoders" / "a.safetensors")
    assert folder_paths.get_full_path_or_raise("text_encoders", "a.safetensors") == str(
        base / "models" / "text_encoders" / "a.safetensors"
    )
    assert folder_paths.get_full_path("loras", "a.safetensors") is None
    assert folder_paths.get_full_path("no_such_type", "a.safetensors") is None


def test_a_missing_model_is_a_file_not_found_error(base: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'loras' with filename 'no.safetensors' not found"):
        folder_paths.get_full_path_or_raise("loras", "no.safetensors")


@pytest.mark.parametrize(
    "name",
    ["../../secret.safetensors", "/secret.safetensors", "a/../../../secret.safetensors", "..", "", "a\0b"],
)
def test_a_name_cannot_leave_its_folder(base: Path, name: str) -> None:
    put(base / "secret.safetensors")
    put(base / "models" / "secret.safetensors")
    (base / "models" / "loras").mkdir(parents=True)
    assert folder_paths.get_full_path("loras", name) is None


def test_a_dangling_link_is_told_and_passed_over(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    (base / "models" / "loras").mkdir(parents=True)
    (base / "models" / "loras" / "a.safetensors").symlink_to(base / "gone")
    assert folder_paths.get_full_path("loras", "a.safetensors") is None
    assert "is a link to a file that is not there" in caplog.text


def test_folders_are_added_at_the_end_or_as_default(base: Path) -> None:
    folder_paths.add_model_folder_path("unet", "/x")
    folder_paths.add_model_folder_path("unet", "/x")
    folder_paths.add_model_folder_path("diffusion_models", "/y", is_default=True)
    assert folder_paths.get_folder_paths("diffusion_models")[0] == "/y"
    assert folder_paths.get_folder_paths("unet")[-1] == "/x"
    folder_paths.add_model_folder_path("unet", "/x", is_default=True)
    assert folder_paths.get_folder_paths("unet")[:2] == ["/x", "/y"]
    assert folder_paths.get_folder_paths("unet").count("/x") == 1
    folder_paths.add_model_folder_path("of_a_pack", "/z")
    assert folder_paths.folder_names_and_paths["of_a_pack"] == (["/z"], set())


@pytest.mark.parametrize(
    "name, plain, folder",
    [
        ("a.png", "a.png", None),
        ("a.png [output]", "a.png", "output"),
        ("s/a.png [temp]", "s/a.png", "temp"),
        ("a b.png [input]", "a b.png", "input"),
        ("a.png [other]", "a.png [other]", None),
    ],
)
def test_an_annotation_names_the_folder(base: Path, name: str, plain: str, folder: str | None) -> None:
    assert folder_paths.annotated_filepath(name) == (plain, str(base / folder) if folder else None)
    if folder:
        assert folder_paths.get_annotated_filepath(name) == str(base / folder / plain)


def test_an_annotated_file_exists_or_not(base: Path) -> None:
    put(base / "input" / "a.png")
    assert folder_paths.exists_annotated_filepath("a.png") and folder_paths.exists_annotated_filepath(
        "a.png [input]"
    )
    assert not folder_paths.exists_annotated_filepath("a.png [output]")
    assert folder_paths.get_annotated_filepath("a.png", str(base / "temp")) == str(base / "temp" / "a.png")


@pytest.mark.parametrize(
    "name", ["../secret.png", "../secret.png [output]", "/etc/passwd", "link/secret.png", "a\0b"]
)
def test_an_annotated_name_cannot_leave_its_folder(base: Path, name: str) -> None:
    put(base / "secret.png")
    (base / "input" / "link").symlink_to(base)
    assert not folder_paths.exists_annotated_filepath(name)
    with pytest.raises(
        ValueError, match="Invalid file path: .*Name a file inside the input, output or temp folder"
    ):
        folder_paths.get_annotated_filepath(name)


def test_saved_images_are_numbered_on(base: Path) -> None:
    out = folder_paths.get_output_directory()
    folder, name, number, subfolder, prefix = folder_paths.get_save_image_path("sub/Comfy", out)
    assert (name, number, subfolder, prefix) == ("Comfy", 1, "sub", "sub/Comfy")
    assert Path(folder) == base / "output" / "sub" and Path(folder).is_dir()
    for saved in (
        "Comfy_00001_.png",
        "Comfy_00041_.png",
        "Comfyx_00099_.png",
        "Comfy_77abc.png",
        "Comfy_5.json",
    ):
        put(Path(folder) / saved)
    assert folder_paths.get_save_image_path("sub/Comfy", out)[2] == 42


def test_placeholders_of_a_prefix_are_filled(base: Path) -> None:
    prefix = "%year%-%month%-%day%/%hour%%minute%%second%_%width%x%height%_%unknown%"
    folder, name, *_ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory(), 640, 480)
    assert name.endswith("_640x480_%unknown%") and name[:6].isdigit()
    assert Path(folder).name == time.strftime("%Y-%m-%d")


@pytest.mark.parametrize("prefix", ["../x", "/tmp/x", "a/../../x", "link/x"])
def test_saving_outside_the_output_folder_is_refused(base: Path, prefix: str) -> None:
    (base / "output" / "link").symlink_to(base)
    with pytest.raises(
        ValueError, match="Saving outside the output folder is not allowed: .*Choose a prefix"
    ):
        folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())


def test_input_subfolders_are_listed_with_slashes(base: Path) -> None:
    put(base / "input" / "b" / "c" / "x.png")
    put(base / "input" / "a" / "x.png")
    assert folder_paths.get_input_subfolders() == ["a", "b", "b/c"]
    folder_paths.set_input_directory(str(base / "nowhere"))
    assert folder_paths.get_input_subfolders() == []


@pytest.mark.parametrize("user", ["", "__system", "..", ".", "a/b", "a\\b", "../x", "a\0", None, 5])
def test_http_names_no_user_outside_the_user_folder(base: Path, user: object) -> None:
    assert folder_paths.get_public_user_directory(user) is None  # type: ignore[arg-type]


def test_a_plain_user_has_a_folder(base: Path) -> None:
    assert folder_paths.get_public_user_directory("default") == str(base / "user" / "default")
    assert folder_paths.get_system_user_directory("cache") == str(base / "user" / "__cache")


@pytest.mark.parametrize("name, words", [("", "needs a name"), ("_x", "leave out"), ("a/b", "only letters")])
def test_a_bad_system_user_is_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        folder_paths.get_system_user_directory(name)


@pytest.mark.parametrize(
    "kind, is_dangerous",
    [
        ("text/html", True),
        ("TEXT/HTML; charset=utf-8", True),
        ("image/svg+xml", True),
        ("application/rss+xml", True),
        ("model/xml", True),
        ("image/png", False),
        ("", False),
        (None, False),
    ],
)
def test_types_that_run_in_a_browser_are_known(kind: str | None, is_dangerous: bool) -> None:
    assert folder_paths.is_dangerous_content_type(kind) is is_dangerous


def test_an_svg_is_safe_only_where_the_browser_asks_for_an_image() -> None:
    assert folder_paths.renders_safely_as_image("image/svg+xml; x=y", "image")
    assert not folder_paths.renders_safely_as_image("image/svg+xml", "document")
    assert not folder_paths.renders_safely_as_image("text/html", "image")
    assert not folder_paths.renders_safely_as_image(None, None)


def test_a_yaml_file_adds_folders(base: Path) -> None:
    (base / "paths.yaml").write_text(
        "empty:\nlibrary:\n  base_path: lib\n  is_default: true\n  loras: |\n    a\n    b\n  checkpoints: c\n"
        "plain:\n  vae: v\n  unet: /abs/u\n",
        encoding="utf-8",
    )
    load_extra_path_config(str(base / "paths.yaml"))
    assert folder_paths.get_folder_paths("loras")[:2] == [str(base / "lib" / "b"), str(base / "lib" / "a")]
    assert folder_paths.get_folder_paths("checkpoints")[0] == str(base / "lib" / "c")
    assert str(base / "v") == folder_paths.get_folder_paths("vae")[-1]
    assert "/abs/u" == folder_paths.get_folder_paths("diffusion_models")[-1]


def test_the_yaml_file_of_the_base_folder_is_read_by_itself(base: Path) -> None:
    (base / "extra_model_paths.yaml").write_text("a:\n  loras: one\n", encoding="utf-8")
    (base / "given.yaml").write_text("a:\n  loras: two\n", encoding="utf-8")
    load_configured(Namespace(extra_model_paths_config=[[str(base / "given.yaml")]]))
    assert folder_paths.get_folder_paths("loras")[-2:] == [str(base / "one"), str(base / "two")]


@pytest.mark.parametrize(
    "text, words",
    [
        ("a: [", "is not YAML: .*Correct or remove the file"),
        ("- a", "holds no sections. Write a name, a colon"),
        ("a: b", "section 'a' holds no folders. Write 'checkpoints: FOLDER' there"),
        ("a:\n  loras: 5", "section 'a': 'loras' is no folder. Write a path, or one path per line"),
    ],
)
def test_a_bad_yaml_file_says_what_to_write(base: Path, text: str, words: str) -> None:
    (base / "paths.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        load_extra_path_config(str(base / "paths.yaml"))


def test_an_empty_yaml_file_adds_nothing(base: Path) -> None:
    (base / "paths.yaml").write_text("# nothing\n", encoding="utf-8")
    before = {name: list(paths) for name, (paths, _) in folder_paths.folder_names_and_paths.items()}
    load_extra_path_config(str(base / "paths.yaml"))
    assert {name: paths for name, (paths, _) in folder_paths.folder_names_and_paths.items()} == before
