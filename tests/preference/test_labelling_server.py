"""What the labelling page's server lets through, what it refuses, and what it survives."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")
import httpx2 as httpx
from page_makers import drawn_store, text_store
from sqlalchemy import update
from starlette.testclient import TestClient

from envs.errors import RllabError
from preference import schema
from preference.labelling import labelling_server
from preference.labelling.app import VERSION, create_app
from preference.labelling.office import Office
from preference.labelling.security import LARGEST_BODY, MOST_WRONG, Door
from preference.labelling.settings import PageConfig
from preference.store import Store
from rllab.cli.main import main

PLAIN = PageConfig(port=0, second_opinions=0, repeats=0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with drawn_store(tmp_path / "store.db", 4, frames=3, size=16) as opened:
        yield opened


def client_of(store: Store, door: Door | None = None) -> TestClient:
    return TestClient(create_app(Office(store, PLAIN), lambda host: host == "testserver", door))


@pytest.fixture
def client(store: Store) -> TestClient:
    return client_of(store)


def answer(number: int, **fields: object) -> dict[str, object]:
    return {"id": str(uuid.uuid4()), "pair": number, "choice": "left", "seconds": 1.0, **fields}


def next_pair(client: TestClient, who: str = "ann") -> dict[str, Any]:
    pair: dict[str, Any] = client.post("/api/next", json={"annotator": who, "want": 1, "have": []}).json()["pairs"][0]
    return pair


def sentence(response: Any) -> str:
    text: str = response.json()["error"]
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("path", ["/", "/stats", "/history"])
def test_a_page_is_served_with_a_policy_that_lets_only_its_own_code_run(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert "<title>" in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    # The policy forbids code and style within the page: there is none.
    assert "<style" not in response.text
    assert " style=" not in response.text
    assert all("src=" in part.partition(">")[0] for part in response.text.split("<script")[1:])


def test_every_file_that_the_pages_name_is_there_and_no_other_can_be_had(client: TestClient) -> None:
    for name in ("style.css", "label.js", "stats.js", "history.js", "icon.svg", "clock.js"):
        assert client.get(f"/page/{VERSION}/{name}").status_code == 200
    for path in (
        "/page/1/..%2fapp.py", "/page/%2e%2e/app.py", "/page/1/label.html.py", "/page/1/__init__.py", "/page//etc/passwd",
        "/page/....//app.py", "/api/clips/..%2f1/sheet", "/api/clips/1/../../store.db", "/etc/passwd",
    ):  # fmt: skip
        assert client.get(path).status_code == 404


def test_a_clip_is_had_by_its_number_as_a_sheet_and_as_a_video_in_pieces(client: TestClient) -> None:
    pair = next_pair(client)
    sheet = client.get(pair["left"]["sheet"])
    assert (sheet.headers["content-type"], sheet.content[:4]) == ("image/webp", b"RIFF")
    video = client.get(pair["left"]["video"])
    assert (video.headers["content-type"], video.content[4:8]) == ("video/mp4", b"ftyp")
    piece = client.get(pair["left"]["video"], headers={"range": "bytes=4-7"})
    assert (piece.status_code, piece.content) == (206, b"ftyp")
    assert sentence(client.get("/api/clips/999/sheet")) == "The frames of clip 999 are not there."


def test_the_question_is_markdown_without_html(tmp_path: Path) -> None:
    with text_store(tmp_path / "texts.db", []) as store:
        store.set_question("Which is **kinder**? <script>alert(1)</script> ![x](http://elsewhere/x.png)")
        html = client_of(store).get("/api/task").json()["question_html"]
    assert "<strong>kinder</strong>" in html
    assert "<script" not in html
    assert "<img" not in html


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"want": 1, "have": []}', "needs a name"),
        ('{"annotator": "", "want": 1}', "needs a name"),
        ('{"annotator": "a\\u0000b", "want": 1}', "needs a name"),
        (json.dumps({"annotator": "x" * 65, "want": 1}), "needs a name"),
        ('{"annotator": "ann", "want": "many"}', "`want` must be a whole number"),
        ('{"annotator": "ann", "want": -1}', "`want` must be a whole number"),
        ('{"annotator": "ann", "want": true}', "`want` must be a whole number"),
        ('{"annotator": "ann", "want": 1, "have": "1"}', "`have` must be a list"),
        ('{"annotator": "ann", "want": 1, "have": [1.5]}', "`have` must be a whole number"),
        ("[" * 30_000 + "]" * 30_000, "not JSON"),
    ],
)
def test_a_malformed_request_is_told_what_is_wrong(client: TestClient, body: str, said: str) -> None:
    response = client.post("/api/next", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert said in sentence(response)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": "1"}, "`id` must be a UUID"),
        ({"pair": None}, "`pair` must be a whole number"),
        ({"choice": "both"}, "`choice` must be left, right, tie or skip"),
        ({"seconds": -1}, "`seconds` must be"),
        ({"seconds": "1"}, "`seconds` must be"),
        ({"seconds": 10**400}, "`seconds` must be"),
        ({"supersedes": "x"}, "`supersedes` must be a UUID"),
    ],
)
def test_one_malformed_answer_keeps_all_of_its_companions_out(
    client: TestClient, store: Store, fields: dict[str, object], said: str
) -> None:
    good = answer(next_pair(client)["pair"])
    response = client.post("/api/answers", json={"annotator": "ann", "answers": [good, answer(1, **fields)]})
    assert response.status_code == 400
    assert said in sentence(response)
    assert store.progress().answered == 0


def test_what_is_too_large_is_refused_whether_it_says_so_or_not(client: TestClient) -> None:
    large = b'{"annotator": "' + b"x" * LARGEST_BODY + b'"}'
    headers = {"content-type": "application/json"}
    assert client.post("/api/next", content=large, headers=headers).status_code == 413
    pieces = (large[i : i + 1000] for i in range(0, len(large), 1000))
    assert client.post("/api/next", content=pieces, headers=headers).status_code == 413
    many = {"annotator": "ann", "answers": [answer(1)] * 101}
    assert "at most 100" in sentence(client.post("/api/answers", json=many))


def test_only_json_from_the_page_itself_is_taken(client: TestClient) -> None:
    body = {"annotator": "ann", "want": 1, "have": []}
    assert client.post("/api/next", data={"annotator": "ann"}).status_code == 415
    assert client.post("/api/next", json=body, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/api/next", json=body, headers={"origin": "null"}).status_code == 403
    assert client.post("/api/next", json=body, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/api/stats", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/api/next", json=body, headers={"host": "evil.example"}).status_code == 421
    assert client.get("/", headers={"host": "evil.example:80"}).status_code == 421
    assert client.put("/api/next", json=body).status_code == 405
    assert client.post("/api/next", json=body, headers={"origin": "http://testserver"}).status_code == 200


def test_without_the_token_there_is_nothing_and_it_opens_the_door_once(store: Store) -> None:
    told: list[str] = []
    client = client_of(store, Door(told.append))
    for path in ("/", "/page/1/label.js", "/api/task", "/api/clips/1/sheet"):
        assert client.get(path).status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    response = client.get(f"/?token={told[0]}")
    assert response.status_code == 200
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/api/task").status_code == 200
    other = client_of(store, None)
    assert other.get("/api/task").status_code == 200
    stranger = TestClient(client.app)
    assert stranger.get(f"/?token={told[0]}").status_code == 401
    assert stranger.get(f"/?token={told[1]}").status_code == 200


def test_many_wrong_tokens_close_the_door_for_a_while(store: Store) -> None:
    told: list[str] = []
    now = [0.0]
    client = client_of(store, Door(told.append, lambda: now[0]))
    for _ in range(MOST_WRONG):
        assert client.get("/?token=guess").status_code == 401
    assert client.get(f"/?token={told[-1]}").status_code == 429
    now[0] = 61.0
    assert client.get(f"/?token={told[-1]}").status_code == 200


def test_numbers_beyond_any_clip_are_no_fault_of_the_server(client: TestClient) -> None:
    for number in ("9" * 30, "9" * 5000, "-1", "1.5", "x", "٣"):
        for path in (f"/api/clips/{number}/sheet", f"/api/clips/{number}/video", f"/api/pairs/{number}?annotator=ann"):
            assert client.get(path).status_code == 400


def test_a_page_of_another_store_is_refused_and_its_clips_are_others(store: Store, tmp_path: Path) -> None:
    client = client_of(store)
    pair = next_pair(client)
    body = {"annotator": "ann", "answers": [answer(pair["pair"])], "store": str(uuid.uuid4())}
    response = client.post("/api/answers", json=body)
    assert response.status_code == 409
    assert "another store" in sentence(response)
    body["store"] = client.get("/api/task").json()["store"]
    assert client.post("/api/answers", json=body).status_code == 200
    with drawn_store(tmp_path / "other.db", 4, frames=3, size=16) as other:
        assert next_pair(client_of(other))["left"]["sheet"] != pair["left"]["sheet"]


def test_at_every_address_a_name_must_be_known_and_an_address_need_not(store: Store) -> None:
    from preference.labelling.serve import _hosts

    known = _hosts(PageConfig(host="0.0.0.0", names=("Labels.example",)))
    for host in ("192.168.1.20", "10.0.0.5", "localhost", socket.gethostname(), "labels.example"):
        assert known(host)
    assert not known("evil.example")
    assert not _hosts(PageConfig())("192.168.1.20")


def test_answers_to_a_store_that_was_replaced_are_not_refused_but_wait(store: Store, tmp_path: Path) -> None:
    client = client_of(store)
    pair = next_pair(client)["pair"]
    path = store.database.path
    assert path is not None
    kept = path.with_name("kept.db")
    path.rename(kept)
    drawn_store(path, 1, frames=1, size=8).close()
    assert client.post("/api/answers", json={"annotator": "ann", "answers": [answer(pair)]}).status_code == 503
    assert client.get("/api/history?annotator=ann").status_code == 503


def test_nobody_sees_another_persons_pair(client: TestClient) -> None:
    pair = next_pair(client)["pair"]
    assert client.get(f"/api/pairs/{pair}?annotator=ann").status_code == 200
    assert client.get(f"/api/pairs/{pair}?annotator=bob").status_code == 404


def test_a_store_out_of_reach_is_told_as_such_and_the_server_goes_on(store: Store, client: TestClient) -> None:
    path = store.database.path
    assert path is not None
    away = path.with_name("away.db")
    path.rename(away)
    response = client.post("/api/next", json={"annotator": "ann", "want": 1, "have": []})
    assert response.status_code == 503
    assert "put it back" in sentence(response)
    away.rename(path)
    assert next_pair(client)["pair"] >= 1


def test_the_stream_tells_how_it_stands_and_again_when_that_changes(store: Store) -> None:
    with labelling_server(store.url, PLAIN, lambda line: None) as server:
        address = server.address.rstrip("/")
        with httpx.stream("GET", f"{address}/api/events?annotator=ann", timeout=10) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = (line for line in stream.iter_lines() if line.startswith("data: "))
            first = json.loads(next(lines)[6:])
            assert (first["done"], first["queue"], first["trainer"]) == (0, 4, None)
            pair = httpx.post(f"{address}/api/next", json={"annotator": "ann", "want": 1}).json()["pairs"][0]["pair"]
            httpx.post(f"{address}/api/answers", json={"annotator": "ann", "answers": [answer(pair)]})
            while (status := json.loads(next(lines)[6:]))["done"] == 0:
                pass
    assert (status["done"], status["today"], status["queue"]) == (1, 1, 3)


def test_a_taken_port_is_named_with_what_to_do(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RllabError, match=f"Port {port} is in use by another program; choose another with --port"):
            labelling_server(store.url, PageConfig(port=port))
        run = tmp_path / "run"
        asked = ["preference", "learn", "Pendulum-v1", "--teacher", "human", "--port", str(port), "--out", str(run)]
        assert main(asked) == 2
        assert f"Port {port} is in use" in capsys.readouterr().err
        assert not run.exists()


def test_a_store_of_a_newer_version_or_none_ends_the_command_with_a_sentence(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.database.write() as connection:
        connection.execute(update(schema.meta).where(schema.meta.c.name == "version").values(value="99"))
    for where, said in ((store.url, "has version 99"), (str(tmp_path / "none.db"), "There is no store")):
        assert main(["preference", "label", "--store", where, "--port", "0"]) == 2
        assert said in capsys.readouterr().err


def serve(store: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    """The command itself, as a process; and the address that it tells."""
    program = "import sys; from rllab.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-u", "-c", program, "preference", "label", "--store", str(store)]
    # A shell ignores SIGINT for what it runs in the background, and these tests may be run there.
    process = subprocess.Popen(
        [*command, "--port", str(port), "--repeats", "0", "--second-opinions", "0"], stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1].rstrip("/")


def test_a_server_killed_at_any_moment_loses_no_answer_that_it_has_acknowledged_and_counts_none_twice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    drawn_store(path, 40, frames=1, size=8).close()
    process, address = serve(path, 0)
    port = int(address.rpartition(":")[2])
    acknowledged: set[str] = set()
    sent: list[dict[str, object]] = []
    for round_ in range(3):
        pairs = httpx.post(f"{address}/api/next", json={"annotator": "ann", "want": 8}).json()["pairs"]
        for place, pair in enumerate(pairs):
            sent.append(answer(pair["pair"]))
            if place == 4 + round_:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                break
            results = httpx.post(f"{address}/api/answers", json={"annotator": "ann", "answers": [sent[-1]]}).json()
            acknowledged |= {result["id"] for result in results["results"]}
        process, again = serve(path, port)
        assert again == address
        # The page sends all that it has not heard of, and here all that it ever sent.
        results = httpx.post(f"{address}/api/answers", json={"annotator": "ann", "answers": sent}).json()["results"]
        assert {result["status"] for result in results} <= {"kept", "late", "known"}
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert f"{len(sent)} answers are in" in process.stdout.read()
    assert process.wait() == 0
    with Store.open(path) as store:
        kept = [str(item.answer.id) for item in store.comparisons().added]
    assert sorted(kept) == sorted(str(each["id"]) for each in sent)
    assert acknowledged <= set(kept)


def test_the_command_ends_at_once_though_pages_are_open(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    drawn_store(path, 1, frames=1, size=8).close()
    process, address = serve(path, 0)
    with httpx.stream("GET", f"{address}/api/events?annotator=ann", timeout=10) as stream:
        next(stream.iter_lines())
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert time.monotonic() - began < 20


def test_an_agent_is_taught_through_the_page_that_its_training_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from learning_runs import SETTINGS, configuration

    from preference.experiment import learn
    from rllab.runs import Run

    addresses: list[str] = []
    done = threading.Event()

    def remembered(store: str, config: PageConfig, say: object) -> Any:
        server = labelling_server(store, config, lambda line: None)
        addresses.append(server.address.rstrip("/"))
        return server

    def person() -> None:
        while not addresses:
            if done.wait(0.05):
                return
        while not done.wait(0.05):
            try:
                pairs = httpx.post(f"{addresses[0]}/api/next", json={"annotator": "ann", "want": 2}).json()["pairs"]
                given = [answer(pair["pair"], choice=("left", "right")[pair["pair"] % 2]) for pair in pairs]
                httpx.post(f"{addresses[0]}/api/answers", json={"annotator": "ann", "answers": given})
            except httpx.TransportError:  # it is starting, or has ended
                continue

    monkeypatch.setattr("preference.beside.labelling_server", remembered)
    thread = threading.Thread(target=person)
    thread.start()
    try:
        preference = configuration("human", labels=8, serve=True, page=PLAIN)
        learn("ppo", "Pendulum-v1", preference, out=tmp_path / "run", **{**SETTINGS, "steps": 500})
    finally:
        done.set()
        thread.join()
    assert Run.open(tmp_path / "run").read_metrics()[-1]["reward/labels"] >= 6
    with Store.open(tmp_path / "run" / "comparisons.sqlite") as store:
        assert set(store.progress().by_annotator) == {"ann"}
        assert next(iter(store.statuses().values()))["phase"] == "finished"
    with pytest.raises(httpx.TransportError):
        httpx.get(addresses[0])
