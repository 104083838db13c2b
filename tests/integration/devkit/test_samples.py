"""Sample archives are whole, real and licensed."""

from __future__ import annotations

from pathlib import Path

from flux_devkit.home import Home
from flux_devkit.samples import KINDS, packaged_files, sample_archive, sample_files
from flux_devkit.synthetic import Recipe, write


def test_the_archive_holds_the_packages_files_and_its_licence(home: Home) -> None:
    """Equal bytes, and copies: the installed package cannot be changed through them."""
    archive = sample_archive(home)
    copied = {path.relative_to(archive).as_posix(): path for path in sample_files(archive)}
    packaged = {
        path.relative_to(packaged_files()).as_posix(): path
        for kind in ("image", "text")
        for path in (packaged_files() / kind).iterdir()
    }

    assert {name: path.read_bytes() for name, path in copied.items()} == {
        name: path.read_bytes() for name, path in packaged.items()
    }
    assert {path.stat().st_nlink for path in copied.values()} == {1}
    assert "CC-BY-4.0" in (archive / "LICENSE.txt").read_text()


def test_all_kinds_are_some_sixty_files(home: Home) -> None:
    """Pictures, documents and texts, sounds and films."""
    assert 55 <= len(sample_files(sample_archive(home, KINDS))) <= 80


def test_a_second_call_uses_the_first_ones_folder(home: Home) -> None:
    """Nothing is copied again."""
    first = sample_archive(home)
    (first / "mark").touch()

    assert (sample_archive(home) / "mark").exists()


def test_a_synthetic_archive_is_written_as_it_says(tmp_path: Path) -> None:
    """Every file named, every byte counted, the spoiled ones among them."""
    written = write(Recipe(5, 30, 30, 30, spoiled_ratio=0.2), tmp_path)
    on_disk = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())

    assert list(written.files) == on_disk
    assert written.bytes_total == sum((tmp_path / path).stat().st_size for path in on_disk)
    assert 0 < len(written.spoiled) < 90
    assert written.spoiled <= set(on_disk)
