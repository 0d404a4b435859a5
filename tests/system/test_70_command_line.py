"""The command line: help that teaches, errors that name the flag, the key and the way out, nothing half done."""
import pathlib
import sys

import lab
import pytest
from lab import run


def fails(code, *args, **kwargs):
    done = run("rk", *args, check=False, timeout=60, **kwargs)
    assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return done.stderr


def test_help_and_version():
    assert "First steps" in run("rk", "help").stdout
    assert "--cluster-cidr" in run("rk", "server", "--help").stdout
    assert "Kubernetes v1.37.1" in run("rk", "version").stdout == run("rk", "--version").stdout


def test_check_finds_this_machine_fit():
    out = run("rk", "check").stdout
    assert "ok       overlay file system" in out and "missing" not in out


def on_a_kernel_without(what, *command):
    """What `rk` says there; it must fail."""
    done = run(sys.executable, pathlib.Path(__file__).with_name("lacking.py"), what, "--", "rk", *command, check=False, timeout=60)
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


def test_what_the_kernel_lacks_is_named_with_its_fix():
    said = on_a_kernel_without("nf_tables", "check")
    assert "missing  nf_tables: " in said and "modprobe nf_tables (kernel option CONFIG_NF_TABLES)" in said and "ok       overlay file system" in said
    said = on_a_kernel_without("overlay", "check")
    assert "missing  overlay file system: load it: modprobe overlay (kernel option CONFIG_OVERLAY_FS)" in said and "ok       nf_tables\n" in said
    both = on_a_kernel_without("nf_tables,overlay", "check")
    assert "missing  nf_tables: " in both and "missing  overlay file system: " in both


def test_a_missing_cgroup_controller_is_named_with_its_fix():
    said = on_a_kernel_without("memory", "check")
    if "cannot be taken away here" in said:
        pytest.skip(said)
    assert "missing  cgroup controller memory: " in said and "cgroup_enable=memory" in said and "ok       cgroup controller pids" in said


def test_a_bad_flag_or_key_is_named(tmp_path):
    assert "--no-such-flag" in fails(64, "server", "--no-such-flag")
    assert "300" in fails(64, "server", "--https-listen-port=300000")
    config = tmp_path / "config.yaml"
    config.write_text("data-dri: /x\n")
    error = fails(64, "server", "--config", config)
    assert "data-dri" in error and str(config) in error
    config.write_text("a: [\n")
    assert str(config) in fails(64, "server", "--config", config)
    config.write_text("disable: [nothing]\n")
    error = fails(64, "server", "--config", config)
    assert "'nothing' for '--disable" in error and str(config) in error
    assert "absent.yaml" in fails(64, "server", "--config", tmp_path / "absent.yaml")
    assert "overlap" in fails(64, "server", "--cluster-cidr=10.43.0.0/16")
    assert "--node-name" in fails(64, "server", "--node-name=Not_A_Name")


def test_a_store_that_there_is_not_is_named(tmp_path):
    assert "PostgreSQL is not among the stores of rk" in fails(64, "server", "--datastore-endpoint=postgres://u:p@db/k")
    assert "'mysql://db' for '--datastore-endpoint" in fails(64, "server", "--datastore-endpoint=mysql://db")
    assert "--datastore-keyfile" in fails(64, "server", "--datastore-endpoint=https://e:2379", "--datastore-certfile=/x")
    assert "--datastore-cafile is for a --datastore-endpoint with https://" in fails(64, "server", "--datastore-cafile=/x")
    config = tmp_path / "config.yaml"
    config.write_text("datastore-endpoint: etcd\n")
    error = fails(64, "server", "--config", config)
    assert "http(s)://HOST:2379" in error and str(config) in error


def test_a_second_server_says_who_runs():
    assert f"process {lab.server_pid()}" in fails(1, "server")


def test_uninstall_refuses_a_folder_that_is_not_its_own(tmp_path):
    assert "--data-dir" in fails(64, "uninstall", "--data-dir=/")
    (tmp_path / "precious").write_text("x")
    assert str(tmp_path) in fails(64, "uninstall", f"--data-dir={tmp_path}")
    assert (tmp_path / "precious").exists() and lab.server_pid()


def test_images_say_what_is_no_archive_and_looking_makes_no_folder(tmp_path):
    assert "not an image archive" in fails(1, "image", "--data-dir", tmp_path / "new", "import", "/etc/passwd")
    assert run("rk", "image", "--data-dir", tmp_path / "absent", "list").stdout.split() == ["IMAGE", "ID", "SIZE"]
    assert not (tmp_path / "absent").exists()
