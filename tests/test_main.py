"""Starting: what cannot work is refused in one sentence, before anything slow is loaded."""

import os
import socket
from argparse import Namespace

import pytest

import folder_paths
import main
from app.user_manager import UserManager
from comfy.cli_args import args, build_parser


@pytest.fixture
def base(tmp_path):
    """A base folder of its own; the program's folders are set again afterwards."""
    yield tmp_path
    folder_paths.apply_arguments(args)


def with_files(base, *files):
    return Namespace(base_directory=str(base), extra_model_paths_config=[[str(file) for file in files]])


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        (["--cuda-device", "1,2"], "CUDA_VISIBLE_DEVICES", "1,2"),
        (["--default-device", "1"], "CUDA_VISIBLE_DEVICES", ",".join(["1", "0", *map(str, range(2, 32))])),
        (["--cuda-malloc"], "PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync"),
        (["--disable-cuda-malloc"], "PYTORCH_CUDA_ALLOC_CONF", None),
        (["--deterministic"], "CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    ],
)
def test_options_for_gpus_are_set_before_their_libraries_are_loaded(monkeypatch, given, name, expected):
    monkeypatch.setattr(os, "environ", {})
    main.apply_device_settings(build_parser().parse_args(given))
    assert os.environ.get(name) == expected


def test_a_prepared_base_has_its_folders_and_an_empty_temp(base):
    (base / "temp").mkdir()
    (base / "temp/old.png").touch()
    main.prepare_folders(with_files(base))
    assert all((base / name).is_dir() for name in ("input", "output", "temp", "user"))
    assert not list((base / "temp").iterdir())


@pytest.mark.parametrize("name", ["input", "output", "user"])
def test_a_file_in_the_place_of_a_folder_is_named(base, name):
    (base / name).touch()
    with pytest.raises(main.StartRefused, match=f"{name} cannot be made: .*--base-directory"):
        main.prepare_folders(with_files(base))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"a: [1", "is not YAML"),
        (b"\xff\xfe", "is not YAML"),
        (b"a:\n  base_path: 5", "section 'a': base_path is no folder: 5"),
        (b"a:\n  checkpoints: [1, 2]", "section 'a': 'checkpoints' is no folder"),
        (b"a:\n  5: x", "section 'a': '5' is no folder"),
        (b"[1]", "holds no sections"),
    ],
)
def test_unusable_model_paths_are_refused_with_file_and_place(base, content, said):
    file = base / "paths.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(main.StartRefused) as caught:
        main.prepare_folders(with_files(base, file))
    assert str(file) in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize("listen", ["", ",", " "])
def test_an_empty_address_never_means_every_address(listen):
    with pytest.raises(main.StartRefused, match="names no address"):
        main.addresses(Namespace(listen=listen, port=1))


def test_addresses_stand_between_commas():
    found = main.addresses(Namespace(listen="127.0.0.1, ::1,", port=1))
    assert found == [("127.0.0.1", 1), ("::1", 1)]


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(main.StartRefused, match=f"--port {port} is no port"):
        main.refuse_used_ports([("127.0.0.1", port)])


def test_a_used_port_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(main.StartRefused, match="in use by another program"):
            main.refuse_used_ports([taken.getsockname()])


@pytest.mark.parametrize(("key", "certificate"), [("key.pem", None), (None, "cert.pem")])
def test_half_a_certificate_does_not_mean_plain_text(key, certificate):
    with pytest.raises(main.StartRefused, match="needs both --tls-keyfile and --tls-certfile"):
        main.refuse_useless_certificate(Namespace(tls_keyfile=key, tls_certfile=certificate))


def test_a_certificate_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "cert.pem").write_text("no certificate")
    for name in ("cert.pem", "missing.pem"):
        wish = Namespace(tls_keyfile=str(tmp_path / name), tls_certfile=str(tmp_path / name))
        with pytest.raises(main.StartRefused, match=f"https is not possible with .*{name}"):
            main.refuse_useless_certificate(wish)


@pytest.mark.parametrize("content", ["{bad", "[1]"])
def test_damaged_users_are_not_taken_for_none(base, monkeypatch, content):
    folder_paths.apply_arguments(Namespace(base_directory=str(base)))
    (base / "user").mkdir()
    (base / "user/users.json").write_text(content)
    monkeypatch.setattr(args, "multi_user", True)
    with pytest.raises(SystemExit, match="users.json is not a JSON object of users"):
        UserManager()
    assert (base / "user/users.json").read_text() == content


def test_a_wrong_option_is_answered_in_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["--base-directory", "/none"])
    assert caught.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("main.py: argument --base-directory: '/none' is not a folder") and "--help" in said
