import os

from bridge.web.counter_files import open_counter_files


def an_old(folder):
    os.utime(folder, (1.0, 1.0))
    return folder


def test_a_folder_is_private_and_gone_when_it_is_removed(tmp_path):
    files = open_counter_files(tmp_path)
    assert files.folder.parent == tmp_path
    assert files.folder.stat().st_mode & 0o077 == 0
    files.remove()
    files.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_is_taken_away_and_a_living_ones_is_not(tmp_path):
    killed, living = open_counter_files(tmp_path), open_counter_files(tmp_path)
    (an_old(killed.folder) / "counter_1.db").write_bytes(b"x")
    an_old(killed.folder), an_old(living.folder)
    os.close(killed.lock)
    started = open_counter_files(tmp_path)
    assert not killed.folder.exists()
    assert living.folder.exists()
    living.remove()
    started.remove()


def test_a_folder_that_is_just_being_made_and_a_link_elsewhere_are_left_alone(tmp_path):
    young = tmp_path / "bridge-counters-young"
    young.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    link = tmp_path / "bridge-counters-link"
    link.symlink_to(elsewhere)
    os.utime(link, (1.0, 1.0), follow_symlinks=False)
    files = open_counter_files(tmp_path)
    assert young.exists()
    assert (elsewhere / "kept").exists()
    files.remove()
