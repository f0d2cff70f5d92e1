"""Batches in OpenAI's form: files of clients, jobs over them, and what a restart finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from batcher.app.jobs.server_jobs import SWEEP_S
from batcher.codecs.row_files.batch_lines import EMBEDDINGS
from batcher.errors import InvalidInput, QueueFull, TooLarge, Unavailable, UnknownJob
from batcher.frontends.endpoints.openai_batches.upload import Upload
from batcher.serving.jobs.batches import AskedBatch, Batches
from batcher.serving.jobs.uploads import END, Uploads
from tests.app.jobs.test_server_jobs import BULK_S, Night
from tests.codecs.test_form_upload import form_of, part

PREDICT = "/models/m/predict"
DAY_S = 86_400.0


class Clients(Night):
    """A server whose clients upload files."""

    def __init__(self, folder: Path, **uploads: Any) -> None:
        super().__init__(folder, uploads=uploads)
        assert self.jobs.batches is not None
        assert self.jobs.uploads is not None
        self.batches: Batches = self.jobs.batches
        self.uploads: Uploads = self.jobs.uploads

    def upload(self, *lines: Any, owner: str = "") -> str:
        """Upload requests; return the id of their file."""
        file = self.batches.arrive(owner, 0)
        for line in lines:
            file.write(json.dumps(line).encode() + b"\n")
        kept = self.batches.keep(file, "mine.jsonl", float("inf"))
        id: str = self.batches.add(kept)["id"]
        return id

    def begin(self, file: str, owner: str = "", endpoint: str = PREDICT) -> str:
        asked = AskedBatch(endpoint, file, {"night": "1"})
        id: str = self.wait(self.batches.create(owner, asked))["id"]
        return id

    def ended(self, id: str, status: str, owner: str = "") -> dict[str, Any]:
        """Let time pass until a batch has `status`."""

        def is_there() -> bool:
            self.serving.loop.clock.advance(BULK_S)
            return bool(self.batches.status(owner, id)["status"] == status)

        self.serving.loop.run_until(is_there)
        return self.batches.status(owner, id)

    def lines(self, id: str) -> list[dict[str, Any]]:
        """Return the lines of a file."""
        text = self.wait(self.batches.content("", id)).path.read_text()
        return [json.loads(line) for line in text.splitlines()]


def asked(row: int, width: int = 4, **more: Any) -> dict[str, Any]:
    body = {"inputs": {"x": [[row] * width]}}
    return {"custom_id": f"c{row}", "method": "POST", "url": PREDICT, "body": body, **more}


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[Clients]:
    clients = Clients(tmp_path)
    clients.wait(clients.jobs.start())
    yield clients
    clients.end()


def test_a_batch_is_answered_and_says_which_requests_are_not(clients: Clients) -> None:
    clients.ready()
    file = clients.upload(*(asked(row, 3 if row == 2 else 4) for row in range(5)))
    id = clients.begin(file)
    batch = clients.ended(id, "completed")
    assert batch["request_counts"] == {"total": 5, "completed": 4, "failed": 1}
    assert (batch["model"], batch["metadata"]) == ("m", {"night": "1"})
    answers = clients.lines(batch["output_file_id"])
    assert [line["custom_id"] for line in answers] == ["c0", "c1", "c3", "c4"]
    assert answers[3]["response"]["body"] == {"outputs": {"y": [[8.0] * 4]}}
    (error,) = clients.lines(batch["error_file_id"])
    assert (error["custom_id"], error["response"]["status_code"]) == ("c2", 400)
    listed = clients.wait(clients.batches.files("", list))
    found = {each["id"]: (each["purpose"], each["bytes"]) for each in listed}
    assert found.keys() == {file, batch["output_file_id"], batch["error_file_id"]}
    assert found[file][0] == "batch"
    assert clients.batches.list("") == [batch]


def test_a_batch_of_wrong_lines_fails_before_anything_runs(clients: Clients) -> None:
    clients.ready()
    id = clients.begin(clients.upload(asked(0), asked(0), {"custom_id": "x"}))
    batch = clients.ended(id, "failed")
    faults = [(each["line"], each["code"]) for each in batch["errors"]["data"]]
    assert faults == [(2, "duplicate_custom_id"), (3, "missing_required_parameter")]
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    assert batch["request_counts"] == {"total": 3, "completed": 0, "failed": 0}
    other = clients.ended(clients.begin(clients.upload(asked(1)), "", EMBEDDINGS), "failed")
    assert other["errors"]["data"][0]["code"] == "mismatched_endpoint"


def test_a_batch_for_a_model_that_is_not_there_says_so(clients: Clients) -> None:
    clients.ready()
    url = "/models/none/predict"
    id = clients.begin(clients.upload(asked(0, url=url)), endpoint=url)
    (error,) = clients.ended(id, "failed")["errors"]["data"]
    assert (error["code"], error["line"]) == ("batch_failed", None)
    assert "none" in error["message"]


def test_files_and_batches_of_another_key_are_unknown(clients: Clients) -> None:
    clients.ready()
    file = clients.upload(asked(0), owner="me")
    with pytest.raises(UnknownJob):
        clients.begin(file)
    id = clients.begin(file, "me")
    batch = clients.ended(id, "completed", "me")
    assert clients.batches.list("") == []
    assert clients.wait(clients.batches.files("", list)) == []
    with pytest.raises(UnknownJob):
        clients.batches.cancel("", id)
    for name in (file, batch["output_file_id"]):
        for call in (clients.batches.file, clients.batches.content, clients.batches.remove):
            with pytest.raises(UnknownJob):
                clients.wait(call("you", name))


def test_a_cancelled_batch_leaves_no_output(clients: Clients) -> None:
    clients.ready()
    id = clients.begin(clients.upload(*map(asked, range(200))))
    output = clients.folder / f"jobs/outputs/{id}{END}.part"
    clients.serving.loop.run_until(output.exists)
    cancelling = clients.batches.cancel("", id)
    assert clients.batches.status("", id)["status"] == "cancelling"
    batch = clients.wait(cancelling)
    assert (batch["status"], batch["output_file_id"]) == ("cancelled", None)
    assert batch["cancelled_at"] >= batch["cancelling_at"] > 0
    assert list((clients.folder / "jobs/outputs").iterdir()) == []


def test_a_file_is_removed_when_no_batch_reads_it(clients: Clients) -> None:
    ready = clients.serving.add()
    file = clients.upload(asked(0))
    id = clients.begin(file)
    with pytest.raises(InvalidInput, match="cancel it first"):
        clients.batches.remove("", file)
    clients.wait(ready)
    output = clients.ended(id, "completed")["output_file_id"]
    for each in (file, output):
        clients.wait(clients.batches.remove("", each))
        with pytest.raises(UnknownJob):
            clients.wait(clients.batches.file("", each))
    assert clients.wait(clients.batches.files("", list)) == []


def test_what_is_old_is_removed_with_all_that_was_written(clients: Clients) -> None:
    clients.ready()
    old = clients.begin(clients.upload(asked(0), asked(1, 3)))
    clients.ended(old, "completed")
    clients.now += 8 * DAY_S
    new = clients.upload(asked(2))
    clients.ended(clients.begin(new), "completed")
    assert [each["input_file_id"] for each in clients.batches.list("")] == [new]
    clients.wait(clients.uploads.disk.run(0, float("inf"), lambda: None))
    kept = [path.name for path in (clients.folder / "jobs").rglob("*") if path.is_file()]
    assert not [name for name in kept if old in name]
    assert {name.partition(".")[0] for name in kept if name.startswith("file-")} == {new}


def test_what_is_old_goes_though_no_client_asks_for_anything(clients: Clients) -> None:
    clients.ready()
    clients.ended(clients.begin(clients.upload(asked(0))), "completed")
    clients.now += 8 * DAY_S
    clients.serving.loop.clock.advance(SWEEP_S)
    clients.wait(clients.uploads.disk.run(0, float("inf"), lambda: None))
    clients.wait(clients.jobs.stop())  # behind what removes the job
    assert not [path for path in (clients.folder / "jobs").rglob("*") if path.is_file()]


def test_a_server_that_is_started_again_goes_on_with_batches_and_files(tmp_path: Path) -> None:
    clients = Clients(tmp_path)
    clients.ready()
    clients.wait(clients.jobs.start())
    id = clients.begin(clients.upload(*map(asked, range(200))))
    clients.serving.loop.run_until((tmp_path / f"jobs/outputs/{id}{END}.part").exists)
    left = clients.batches.arrive("", 0)
    left.write(b"half of a file")
    folder = tmp_path / "jobs/uploads"
    (folder / f"file-0{END}").write_text("without a note")
    (folder / "file-1.json").write_text("{}")
    names = {path.name for path in folder.glob("*.part")}
    clients.end()
    again = Clients(tmp_path)
    with pytest.raises(Unavailable):
        again.batches.status("", id)
    again.serving.add_ready()
    again.wait(again.jobs.start())
    assert len(names) == 1
    assert len(list(folder.iterdir())) == 2
    batch = again.ended(id, "completed")
    answers = again.lines(batch["output_file_id"])
    assert [line["custom_id"] for line in answers] == [f"c{row}" for row in range(200)]
    again.end()


def test_files_are_bounded_in_bytes(tmp_path: Path) -> None:
    clients = Clients(tmp_path, max_file_bytes=100, max_bytes=150)
    with pytest.raises(Unavailable):
        clients.batches.arrive("", 0)
    clients.wait(clients.jobs.start())
    with pytest.raises(TooLarge, match="max_bytes"):
        clients.batches.arrive("", 151)
    file = clients.batches.arrive("", 0)
    file.write(b"x" * 100)
    with pytest.raises(TooLarge, match="max_file_bytes"):
        file.write(b"x")
    other = clients.batches.arrive("", 0)
    with pytest.raises(TooLarge):
        other.write(b"x" * 51)
    del file, other
    assert list((tmp_path / "jobs/uploads").iterdir()) == []
    clients.batches.arrive("", 150)
    clients.end()


def test_one_key_leaves_room_for_others(tmp_path: Path) -> None:
    clients = Clients(tmp_path, max_bytes=200, key_share=0.25)
    clients.wait(clients.jobs.start())
    with pytest.raises(TooLarge, match="key_share"):
        clients.batches.arrive("one", 51)
    arriving = [clients.batches.arrive("one", 1) for _ in range(8)]
    with pytest.raises(QueueFull, match="key_share"):
        clients.batches.arrive("one", 1)
    other = clients.batches.arrive("other", 50)
    for file in arriving:
        file.drop()
    other.write(b"x" * 50)
    kept = clients.batches.keep(other, "mine.jsonl", float("inf"))
    clients.batches.add(kept)
    other.most = 0
    with pytest.raises(TooLarge, match="key_share"):
        clients.batches.arrive("other", 1)
    clients.wait(clients.batches.remove("other", kept.id))
    clients.batches.arrive("other", 50)
    clients.end()


def test_one_key_has_few_batches_under_way_where_shares_are_bounded(tmp_path: Path) -> None:
    clients = Clients(tmp_path, key_share=0.002)  # two of 1000 jobs
    clients.ready()
    clients.wait(clients.jobs.start())
    file = clients.upload(asked(0), owner="one")
    first = clients.begin(file, "one")
    clients.begin(file, "one")
    with pytest.raises(QueueFull, match="key_share"):
        clients.begin(file, "one")
    clients.begin(clients.upload(asked(0), owner="other"), "other")
    clients.ended(first, "completed", "one")
    clients.begin(file, "one")
    clients.end()


def test_a_file_that_has_come_is_not_counted_as_one_that_arrives(tmp_path: Path) -> None:
    clients = Clients(tmp_path, max_file_bytes=100, max_bytes=150)
    clients.wait(clients.jobs.start())
    upload = Upload(clients.batches, clients.batches.arrive("", 0), "B")
    upload.feed(form_of(part("purpose", b"batch"), part("file", b"x" * 60, "mine.jsonl")))
    assert clients.wait(upload.finish().done)["bytes"] == 60
    clients.batches.arrive("", 90)
    with pytest.raises(TooLarge):
        clients.batches.arrive("", 91)
    clients.end()


def test_a_file_that_the_disk_has_no_time_to_remove_is_still_there(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = clients.upload(asked(0)), clients.upload(asked(1))
    clients.now += 8 * DAY_S
    monkeypatch.setattr(clients.uploads.disk, "run", Mock(side_effect=QueueFull("full")))
    with pytest.raises(QueueFull):
        clients.batches.remove("", file)
    clients.batches.sweep()
    monkeypatch.undo()
    assert clients.uploads.find(file, "").id == file
    clients.batches.sweep()
    with pytest.raises(UnknownJob):
        clients.uploads.find(other, "")


def test_a_full_disk_is_a_clear_error(clients: Clients) -> None:
    class Full:
        def write(self, piece: bytes) -> None:
            raise OSError(28, "No space left on device")

    file = clients.batches.arrive("", 0)
    file._file = Full()
    with pytest.raises(Unavailable, match="cannot store it: No space left") as raised:
        file.write(b"x")
    assert raised.value.retry_after == 0
