"""The statistics extension: what is counted, and when."""

from __future__ import annotations

from typing import Any

from tests.frontends.endpoints.conftest import Both
from tests.frontends.endpoints.oip.test_infer import error, json_request
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.models import RecordingModel, rows


class TestStatistics:
    def test_they_count_requests_rows_and_batches(self) -> None:
        server = MemoryServer(RecordingModel())
        clients = [server.connect("loop") for _ in range(3)]
        for count, client in enumerate(clients, start=1):
            client.send(ask("/predict", rows(*map(float, range(count))).tobytes()))
        server.work()
        (entry,) = over_connection(server, ask("/v2/models/m/stats")).decoded()["model_stats"]
        assert (entry["name"], entry["version"]) == ("m", "1")
        assert (entry["inference_count"], entry["execution_count"]) == (6, 1)
        assert [
            entry["inference_stats"][name]["count"]
            for name in ("success", "fail", "queue", "compute_infer")
        ] == [
            3,
            0,
            3,
            3,
        ]
        assert [
            (batch["batch_size"], batch["compute_infer"]["count"]) for batch in entry["batch_stats"]
        ] == [(6, 1)]

    def test_they_add_up_the_time_of_each_stage(self) -> None:
        def slow(inputs: Any) -> Any:
            server.clock.advance(0.5)
            return {"y": inputs["x"]}

        server = MemoryServer(RecordingModel(predict=slow))
        for _ in range(2):
            over_connection(server, ask("/predict", rows(1.0).tobytes()))
        (entry,) = over_connection(server, ask("/v2/models/stats")).decoded()["model_stats"]
        times = {name: spent["ns"] for name, spent in entry["inference_stats"].items()}
        assert times["compute_infer"] == 1_000_000_000
        assert times["success"] == 1_000_000_000
        assert (times["compute_input"], times["queue"], times["cache_hit"]) == (0, 0, 0)

    def test_requests_that_failed_are_counted_apart(self) -> None:
        def raises(inputs: Any) -> Any:
            raise ValueError("no")

        server = MemoryServer(RecordingModel(predict=raises))
        assert over_connection(server, json_request()).status == 500
        (entry,) = over_connection(server, ask("/v2/models/m/versions/1/stats")).decoded()[
            "model_stats"
        ]
        assert [entry["inference_stats"][name]["count"] for name in ("success", "fail")] == [0, 1]
        assert (entry["inference_count"], entry["execution_count"], entry["batch_stats"]) == (
            0,
            0,
            [],
        )

    def test_a_model_that_never_ran_has_all_zero(self, both: Both) -> None:
        (entry,) = both(MemoryServer(), ask("/v2/models/m/stats")).decoded()["model_stats"]
        assert (entry["last_inference"], entry["inference_stats"]["success"]) == (
            0,
            {"count": 0, "ns": 0},
        )

    def test_an_unknown_model_has_none(self, both: Both) -> None:
        assert "'other'" in error(both(MemoryServer(), ask("/v2/models/other/stats")), 404)
