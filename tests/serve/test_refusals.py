"""What the server refuses: each in one sentence that tells nothing of its files."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.serve.security import MOST_JSON, POLICY

NAN = "NaN"
REFUSED = {
    "no JSON": (b"{bad", 400, "JSON"),
    "another type": (b'"text"', 422, ""),
    "nothing asked": ({}, 422, "no query"),
    "two beginnings": ({"patch": "a", "at": [1, 2]}, 422, "patch and at"),
    "unknown name": ({"patch": "S2_nowhere"}, 422, "not in the index"),
    "long name": ({"patch": "x" * 300}, 422, "patch"),
    "name with a null byte": ({"patch": "a\0b"}, 422, "not in the index"),
    "lone surrogate": (b'{"patch": "\\ud800"}', 422, ""),
    "unknown mark": ({"patch": "NAME", "like": ["S2_nowhere"]}, 422, "not in the index"),
    "both marks": ({"like": ["NAME"], "unlike": ["NAME"]}, 422, "relevant and as not relevant"),
    "only unwanted": ({"unlike": ["NAME"]}, 422, "no query"),
    "too few marks to learn from": ({"like": ["NAME"], "method": "logistic"}, 422, "needs 5"),
    "huge k": ({"patch": "NAME", "k": 10**9}, 422, "k: "),
    "huger k": (b'{"patch": "NAME", "k": 1' + b"0" * 5000 + b"}", 400, "JSON"),
    "zero k": ({"patch": "NAME", "k": 0}, 422, "k: "),
    "k that is no number": ({"patch": "NAME", "k": "many"}, 422, "k: "),
    "unknown field": ({"patch": "NAME", "path": "/etc/passwd"}, 422, "path"),
    "unknown direction": ({"patch": "NAME", "direction": "fused_s1"}, 422, "direction"),
    "unknown distance": ({"patch": "NAME", "distance": "manhattan"}, 422, "distance"),
    "NaN in a vector": (b'{"vector": [NaN, 1.0]}', 422, "finite"),
    "infinity in a vector": (b'{"vector": [1e999]}', 422, "finite"),
    "short vector": ({"vector": [1.0, 2.0]}, 422, "shape"),
    "zero vector": ({"vector": [0.0] * 16}, 200, ""),
    "NaN in a place": (b'{"at": [NaN, 1]}', 422, "finite"),
    "place off the earth": ({"at": [500, 1]}, 422, "at.0"),
    "place off the data": ({"at": [0, -50]}, 422, "point is 0,-50"),
    "unknown label": ({"patch": "NAME", "filters": {"labels": ["Tundra"]}}, 422, "Tundra"),
    "unknown country": ({"patch": "NAME", "filters": {"countries": ["Atlantis"]}}, 422, "Atlantis"),
    "box upside down": ({"patch": "NAME", "filters": {"box": [0, 50, 10, 40]}}, 422, "box"),
    "dates swapped": ({"patch": "NAME", "filters": {"since": "2018-01-01", "until": "2017-01-01"}}, 422, "swap"),
    "no date": ({"patch": "NAME", "filters": {"since": "yesterday"}}, 422, "since"),
    "unknown upload": ({"upload": "nothing"}, 404, "upload"),
    "unknown run": ({"patch": "NAME", "run": 7}, 404, "run 7"),
    "negative run": ({"patch": "NAME", "run": -1}, 422, "run"),
    "deep nesting": (b"[" * 100_000, 400, "JSON"),
}  # fmt: skip


def is_one_sentence(body: dict[str, Any]) -> bool:
    return (
        set(body) == {"error"}
        and body["error"].endswith(".")
        and "\n" not in body["error"]
        and len(body["error"]) < 800
    )


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_question_gets_one_sentence(
    client: TestClient, index: Index, run_folders: list[Path], case: str
) -> None:
    question, status, word = REFUSED[case]
    if isinstance(question, bytes):
        found = client.post("/api/search", content=question, headers={"content-type": "application/json"})
    else:
        name = index.names_s2[0]
        given = {
            key: name if value == "NAME" else [name] if value == ["NAME"] else value for key, value in question.items()
        }
        found = client.post("/api/search", json=given)
    assert found.status_code == status, found.text
    if status != 200:
        assert is_one_sentence(found.json()), found.text
        assert word in found.json()["error"]
        assert not any(str(folder.parent) in found.text or "Traceback" in found.text for folder in run_folders)


@pytest.mark.parametrize("path", [
    "/api/patch/S2_nowhere", "/api/patch/..%2F..%2Fetc%2Fpasswd", "/api/position/6", "/api/position/-1",
    "/api/position/x", "/api/thumbnail/S2_nowhere/s1", "/api/thumbnail/S2_nowhere/../../x", "/api/nothing",
    "/assets/app.py", "/assets/..%2Fapp.py", "/assets/%2e%2e/%2e%2e/app.py", "/..%2f..%2fetc%2fpasswd",
    "/api/upload/none/s1", "/api/names",
    "/api/search?patch=x&k=1e9", "/api/search?at=1", "/api/search?patch=x&box=1,2", "/api/search",
])  # fmt: skip
def test_a_wrong_address_gets_one_sentence(client: TestClient, path: str) -> None:
    found = client.get(path)
    assert 400 <= found.status_code < 500, found.text
    assert is_one_sentence(found.json()), found.text


def test_a_wrong_method_gets_one_sentence(client: TestClient) -> None:
    found = client.delete("/api/search")
    assert found.status_code == 405
    assert is_one_sentence(found.json())


@pytest.mark.parametrize("path", ["/", "/assets/main.js", "/api/health", "/api/patch/none", "/nothing"])
def test_every_answer_carries_the_policy(client: TestClient, path: str) -> None:
    found = client.get(path)
    assert found.headers["content-security-policy"] == POLICY
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in found.headers


def test_the_policy_allows_nothing_from_elsewhere() -> None:
    sources = {word for rule in POLICY.split(";") for word in rule.split()[1:]}
    assert sources <= {"'none'", "'self'", "blob:"}


def test_the_page_names_no_other_host(client: TestClient) -> None:
    from bigearthnet_cbir.serve.pages import assets

    for name, asset in assets().items():
        text = asset.content.decode()
        for scheme in ("http://", "https://"):
            assert scheme not in text.replace("http://www.w3.org/2000/svg", ""), name


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:8000", "10.0.0.1", "", "127.0.0.1.attacker.example"]
)
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    found = client.get("/api/health", headers={"host": host})
    assert found.status_code == 421
    assert is_one_sentence(found.json())


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "127.0.0.1:1", "[::1]:8000"])
def test_loopback_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://attacker.example", "null", "http://127.0.0.1:9999"])
def test_a_page_of_another_site_cannot_ask(client: TestClient, origin: str) -> None:
    found = client.post("/api/upload", files={"files": ("a.tif", b"x")}, headers={"origin": origin})
    assert found.status_code == 403


def test_its_own_page_can_ask(client: TestClient, index: Index) -> None:
    found = client.post("/api/search", json={"patch": index.names_s2[0]}, headers={"origin": "http://127.0.0.1:8000"})
    assert found.status_code == 200


def test_a_large_body_is_refused_by_its_length(client: TestClient) -> None:
    found = client.post("/api/search", content=b" " * (MOST_JSON + 1), headers={"content-type": "application/json"})
    assert found.status_code == 413


def test_a_large_body_of_unknown_length_is_refused(client: TestClient) -> None:
    pieces = (b" " * 65_536 for _ in range(1 + MOST_JSON // 65_536))
    found = client.post("/api/search", content=pieces, headers={"content-type": "application/json"})
    assert found.status_code == 413
    assert is_one_sentence(found.json())


def test_damage_is_told_without_a_path(client: TestClient, index: Index, runs: list[Any], monkeypatch) -> None:
    from bigearthnet_cbir.errors import QueryError

    def damaged(*_: Any, **__: Any) -> None:
        raise QueryError(f"{index.folder}/embeddings_fused.npy: missing or damaged")

    monkeypatch.setattr(runs[0], "_nearest", damaged)
    found = client.post("/api/search", json={"patch": index.names_s2[0]})
    assert found.status_code == 500
    assert is_one_sentence(found.json())
    assert "embeddings" not in found.text


def test_a_defect_of_ours_is_told_without_a_traceback(
    client: TestClient, index: Index, runs: list[Any], monkeypatch
) -> None:
    monkeypatch.setattr(runs[0], "_nearest", lambda *_, **__: 1 / 0)
    found = client.post("/api/search", json={"patch": index.names_s2[0]})
    assert found.status_code == 500
    assert is_one_sentence(found.json())
