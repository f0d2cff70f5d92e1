"""Trials in a server without sockets: who answers, what is decided, and what outlives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from batcher.batching.worker import Condition
from batcher.config.model_settings import ModelOverrides
from batcher.config.settings import ServerSettings
from batcher.config.traffic import Canary
from batcher.core.request import Parameters
from batcher.errors import ClientError, InvalidInput, ModelNotReady, UnknownModel
from batcher.serving.canaries.records import kept_versions, read_records, write_record
from batcher.serving.canaries.trial import Trial
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, checked, double, model_spec, rows, tensor

CANARY = {"version": 5, "steps": [10, 50, 100], "every": "1m", "min_requests": 20}


def raising(inputs: Any) -> Any:
    raise RuntimeError("broken")


def model(version: str, predict: Any = double) -> RecordingModel:
    return RecordingModel(model_spec(version=version), predict)


def own(**more: Any) -> dict[str, ModelOverrides]:
    canary = {**CANARY, **more.pop("canary", {})}
    return {"m": ModelOverrides(canary=canary, isolate=False, max_batch_size=1, **more)}


def server(*models: RecordingModel, **more: Any) -> MemoryServer:
    return MemoryServer(*(models or (model("3"), model("5"))), models=own(**more))


def ask(memory: MemoryServer, count: int, begin: int = 0) -> Counter[str]:
    """Ask by `count` routes; return how often each version has answered, or failed."""
    found: Counter[str] = Counter()
    for number in range(begin, begin + count):
        asked = memory.server.infer("m", {"x": rows(1.0)}, "", Parameters(route=f"u{number}"))
        asked.addCallbacks(
            lambda response: found.update([response.version]),
            lambda failure: found.update([type(failure.value).__name__]),
        )
    memory.work()
    return found


def status(memory: MemoryServer) -> dict[str, Any]:
    return memory.server.traffic.canary("m").status()


@pytest.fixture
def decisions() -> Any:
    """Return the lines of the log about canaries."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_format")).startswith("canary"):
            lines.append(str(event["log_format"]).format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_a_good_version_goes_through_its_steps_and_answers_all(decisions: list[str]) -> None:
    memory = server()
    shares = []
    for _ in range(4):
        found = ask(memory, 400)
        shares.append(round(found["5"] / 400, 1))
        memory.clock.advance(61.0)
        status(memory)
    assert shares == [0.1, 0.5, 1.0, 1.0]
    assert status(memory)["outcome"] == "promoted"
    assert [line.split(",")[0] for line in decisions] == [
        "canary m/5: started",
        "canary m/5: stepped",
        "canary m/5: stepped",
        "canary m/5: promoted",
    ]
    assert "gets 50 % of the requests" in decisions[1]
    memory.check_nothing_is_left()


def test_the_keys_of_a_step_stay_with_the_canary_at_the_next_one() -> None:
    memory = server()
    before = {number for number in range(100) if ask(memory, 1, number)["5"]}
    memory.clock.advance(61.0)
    ask(memory, 400)
    after = {number for number in range(100) if ask(memory, 1, number)["5"]}
    assert status(memory)["percent"] == 50
    assert before < after


def test_a_version_that_fails_is_taken_back_within_200_requests_and_no_key_sees_it_again(
    decisions: list[str],
) -> None:
    memory = server(model("3"), model("5", raising))
    found = ask(memory, 300)
    assert 0 < found["ModelError"] < 200
    assert status(memory)["outcome"] == "rolled_back"
    assert ask(memory, 300) == {"3": 300}
    assert "answers of version 5 failed, and 0 of" in decisions[-1]
    metrics = memory.server.metrics.render().decode()
    assert 'batcher_canary_decisions_total{decision="rolled_back",model="m"} 1.0' in metrics
    assert 'batcher_canary_percent{model="m",version="5"} 0.0' in metrics


def test_faults_of_clients_and_of_the_end_are_not_the_canarys() -> None:
    memory = server(canary={"steps": [100]})
    for _ in range(50):
        asked = memory.server.infer("m", {"x": rows(1.0)}, "", Parameters(route="a"))
        asked.addErrback(lambda failure: None)
        asked.cancel()
    assert status(memory)["answers"]["5"] == {"requests": 0, "errors": 0}


def test_stable_is_the_label_else_the_newest_other_version() -> None:
    memory = server(model("2"), model("3"), model("5"), labels={"stable": 2})
    assert set(ask(memory, 100)) == {"2", "5"}
    memory = server(model("2"), model("3"), model("5"))
    assert set(ask(memory, 100)) == {"3", "5"}


def test_while_the_stable_version_loads_the_canary_answers_nobody_else() -> None:
    memory = server(model("5"), labels={"stable": 3})
    stable = model("3")
    late = memory.add(stable)
    assert ask(memory, 20) == {"ModelNotReady": 20}
    late.loaded.callback(checked(stable).loaded())
    assert set(ask(memory, 100)) == {"3", "5"}


def test_where_the_stable_version_is_removed_the_canary_answers() -> None:
    memory = server(model("3"), model("5"), canary={"steps": [1, 100]})
    assert ask(memory, 100)["3"] > 90
    memory.server.lifecycle.forget(memory.server.find("m", "3"))
    assert ask(memory, 100) == {"5": 100}
    assert status(memory)["note"] == "version 3 was removed: version 5 answers all"


def test_a_canary_that_is_alone_is_not_rolled_back_to_nothing() -> None:
    memory = server(model("3"), model("5", raising), canary={"steps": [1, 100]})
    ask(memory, 10)
    memory.server.lifecycle.forget(memory.server.find("m", "3"))
    assert ask(memory, 300) == {"ModelError": 300}
    assert status(memory)["outcome"] == "running"
    late = model("3")
    memory.add(late).loaded.callback(checked(late).loaded())
    ask(memory, 1000)
    assert status(memory)["outcome"] == "rolled_back"
    assert ask(memory, 20) == {"3": 20}


def test_a_version_that_loads_sooner_than_the_older_one_is_tried_all_the_same() -> None:
    memory = server(model("5"), canary={"version": "latest"})
    older = model("3")
    late = memory.add(older)
    assert ask(memory, 20) == {"5": 20}
    late.loaded.callback(checked(older).loaded())
    assert set(ask(memory, 100)) == {"3", "5"}
    assert status(memory)["stable"] == "3"


def past_trial(outcome: str) -> dict[str, Any]:
    """Return the state of a trial of version 5 against 3, from some earlier day."""
    trial = Trial(Canary(version="5"), "5", "3", 0.0)
    return {**trial.record(10.0), "outcome": outcome}


@pytest.mark.parametrize("outcome", ["running", "promoted", "rolled_back"])
def test_a_trial_whose_versions_are_gone_is_no_reason_to_send_all_to_a_new_one(
    outcome: str,
) -> None:
    memory = server(model("7"), model("8"), canary={"version": "latest"})
    memory.settings.records["m"] = past_trial(outcome)
    assert ask(memory, 200)["7"] > 100
    assert (status(memory)["candidate"], status(memory)["stable"]) == ("8", "7")


@pytest.mark.parametrize(
    ("outcome", "there", "stable"), [("promoted", "3", "3"), ("running", "5", "5")]
)
def test_a_new_version_is_compared_with_what_answers_after_the_other_one_is_gone(
    outcome: str, there: str, stable: str
) -> None:
    memory = server(model(there), canary={"version": "latest"})
    memory.settings.records["m"] = past_trial(outcome)
    assert ask(memory, 20) == {there: 20}
    late = model("8")
    memory.add(late).loaded.callback(checked(late).loaded())
    assert set(ask(memory, 100)) == {there, "8"}
    assert status(memory)["stable"] == stable


def test_a_version_that_was_rolled_back_is_nobodys_stable_version() -> None:
    memory = server(model("5"), model("7"), canary={"version": "latest"})
    memory.settings.records["m"] = past_trial("rolled_back")
    assert ask(memory, 20) == {"7": 20}
    memory = server(model("5"), canary={"version": "latest"})
    memory.settings.records["m"] = past_trial("rolled_back")
    assert ask(memory, 20) == {"ModelNotReady": 20}


@pytest.mark.parametrize("wrong", [{"step_s": 10**400}, {"evidence": []}, {"tried": [1, 2, 3]}])
def test_a_trial_whose_state_says_nonsense_begins_anew(wrong: dict[str, Any]) -> None:
    memory = server(canary={"steps": [50]})
    memory.settings.records["m"] = {**past_trial("rolled_back"), **wrong}
    assert set(ask(memory, 100)) == {"3", "5"}


def test_a_canary_with_other_inputs_gets_nothing_until_a_person_promotes_it() -> None:
    other = RecordingModel(model_spec(version="5", inputs=(tensor("x", shape=(7,)),)))
    memory = server(model("3"), other, canary={"steps": [50]})
    assert ask(memory, 40) == {"3": 40}
    assert status(memory)["note"] == "version 5 has other inputs or outputs: version 3 answers all"
    memory.server.traffic.canary("m").promote()
    assert memory.server.traffic.servable("m").spec.version == "5"
    memory.server.traffic.canary("m").abort()
    assert ask(memory, 40) == {"3": 40}


def test_until_the_canary_is_there_the_stable_version_answers() -> None:
    memory = server(model("3"))
    assert ask(memory, 20) == {"3": 20}
    late = model("5")
    memory.add(late).loaded.callback(checked(late).loaded())
    assert set(ask(memory, 100)) == {"3", "5"}


def test_the_newest_version_is_tried_where_the_settings_say_latest() -> None:
    memory = server(model("3"), canary={"version": "latest"})
    assert ask(memory, 20) == {"3": 20}
    assert kept_versions(memory.settings.records["m"]) == {"3"}
    late = model("4")
    memory.add(late).loaded.callback(checked(late).loaded())
    assert set(ask(memory, 100)) == {"3", "4"}
    memory.server.traffic.canary("m").promote()
    assert ask(memory, 20) == {"4": 20}
    last = model("6", raising)
    memory.add(last).loaded.callback(checked(last).loaded())
    ask(memory, 300)
    assert (status(memory)["outcome"], status(memory)["stable"]) == ("rolled_back", "4")
    assert ask(memory, 20) == {"4": 20}
    memory.server.unload(memory.server.find("m", "6"))
    assert ask(memory, 20) == {"4": 20}


def test_the_status_says_that_a_version_on_trial_is_gone() -> None:
    memory = server()
    ask(memory, 20)
    assert status(memory)["note"] == ""
    memory.server.unload(memory.server.find("m", "5"))
    assert status(memory)["note"] == "version 5 cannot answer now: version 3 answers all"
    assert ask(memory, 20) == {"3": 20}


def test_a_shadow_is_not_tried_though_it_is_the_newest() -> None:
    memory = server(model("3"), model("9"), canary={"version": "latest"}, shadow={"version": 9})
    assert ask(memory, 20) == {"3": 20}
    late = model("5")
    memory.add(late).loaded.callback(checked(late).loaded())
    assert set(ask(memory, 100)) == {"3", "5"}


def test_a_version_is_compared_with_what_the_stable_one_has_answered_before() -> None:
    memory = server(model("3"), canary={"version": "latest", "steps": [100]})
    ask(memory, 30)
    late = model("4")
    memory.add(late).loaded.callback(checked(late).loaded())
    ask(memory, 10)
    canary = memory.server.traffic.canary("m")
    assert canary.trial is not None
    assert (canary.trial.past.requests, canary.trial.tried.requests) == (30, 10)
    canary.promote()
    ask(memory, 5)
    last = model("6")
    memory.add(last).loaded.callback(checked(last).loaded())
    ask(memory, 1)
    assert (canary.trial.stable, canary.trial.past.requests) == ("4", 15)


def test_a_canary_whose_worker_has_ended_is_taken_back() -> None:
    memory = server()
    ask(memory, 10)
    memory.workers["m/5"].lose(Condition.DEAD, "the device is lost")
    assert ask(memory, 100) == {"3": 100}
    assert "no worker of version 5 is alive" in status(memory)["reason"]


def test_a_person_promotes_and_takes_back() -> None:
    memory = server()
    canary = memory.server.traffic.canary("m")
    canary.promote()
    assert ask(memory, 50) == {"5": 50}
    canary.abort()
    assert ask(memory, 50) == {"3": 50}
    memory.server.unload(memory.server.find("m", "5"))
    with pytest.raises(ModelNotReady):
        canary.promote()


def test_what_cannot_be_promoted_says_why() -> None:
    memory = server(model("3"), canary={"version": "latest"})
    ask(memory, 1)
    with pytest.raises(InvalidInput, match="expected a version on trial"):
        memory.server.traffic.canary("m").promote()
    with pytest.raises(InvalidInput, match="expected a model with the setting `canary`"):
        MemoryServer().server.traffic.canary("m")
    with pytest.raises(UnknownModel):
        memory.server.traffic.canary("other")
    assert issubclass(UnknownModel, ClientError)


def test_a_trial_outlives_the_server() -> None:
    first = server()
    ask(first, 400)
    first.clock.advance(61.0)
    ask(first, 200)
    assert status(first)["step"] == 2
    second = server()
    second.settings.records.update(first.settings.records)
    assert (status(second)["step"], status(second)["percent"]) == (2, 50)
    assert status(second)["answers"]["5"]["requests"] > 0


def test_a_reload_with_other_steps_keeps_the_trial() -> None:
    memory = server()
    ask(memory, 100)
    settings = ServerSettings(models=own(canary={"steps": [30, 100]}))
    settings.share_records(memory.settings)
    memory.server.traffic.follow(settings)
    assert status(memory)["percent"] == 30
    assert status(memory)["answers"]["5"]["requests"] > 0


def test_a_hundred_promotions_and_rollbacks_lose_nothing() -> None:
    memory = server()
    canary = memory.server.traffic.canary("m")
    found: Counter[str] = Counter()
    for turn in range(100):
        change: Callable[[], None] = canary.abort if turn % 2 else canary.promote
        meant = "3" if turn % 2 else "5"
        change()
        answers = ask(memory, 10)
        assert answers == {meant: 10}
        found.update(answers)
    assert found == {"3": 500, "5": 500}
    memory.check_nothing_is_left()


def test_records_go_through_files(tmp_path: Path) -> None:
    record = {"candidate": "5", "stable": "3", "outcome": "running"}
    write_record(tmp_path, "a/b c", record)
    write_record(tmp_path, "..", record)
    assert read_records(tmp_path) == {"a/b c": record, "..": record}
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "trials"}


RECORD = '{"candidate": "5", "stable": "3", "outcome": "running", "step_s": %s}'
NO_RECORDS = [
    *("", "{", "[]", "{}", '{"candidate": 1}', "\xff", "[" * 50_000),
    *(RECORD % number for number in ("NaN", "-Infinity", "1e999")),
    *(RECORD.replace('"3"', version) % 1 for version in ('"../3"', "null", "-1")),
]


@pytest.mark.parametrize("text", NO_RECORDS)
def test_a_file_that_is_no_record_is_left_out(tmp_path: Path, text: str) -> None:
    write_record(tmp_path, "m", {})
    next(tmp_path.rglob("*.json")).write_bytes(text.encode("latin-1"))
    assert read_records(tmp_path) == {}


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [("running", {"3", "5"}), ("promoted", {"5"}), ("rolled_back", {"3"}), ("?", {"3"})],
)
def test_what_a_trial_needs_is_loaded(outcome: str, kept: set[str]) -> None:
    assert kept_versions({"candidate": "5", "stable": "3", "outcome": outcome}) == kept
    assert kept_versions(None) == set()
