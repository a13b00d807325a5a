"""The JSON API against the index that it serves."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from bigearthnet_cbir.query.index import Index

SIDES = {"fused": ("fused", "fused"), "s1_s1": ("s1", "s1"), "s2_s2": ("s2", "s2"), "s1_s2": ("s1", "s2"),
         "s2_s1": ("s2", "s1")}  # fmt: skip


def answer(client: TestClient, **question: Any) -> dict[str, Any]:
    found = client.post("/api/search", json=question)
    assert found.status_code == 200, found.text
    return found.json()


def cosine_order(query: np.ndarray, rows: np.ndarray, leave: set[int]) -> tuple[list[int], list[float]]:
    """Return positions, nearest first, ties by position, by the definition of the cosine distance."""
    distances = [1 - float(query @ row) / float(np.linalg.norm(query) * np.linalg.norm(row)) for row in rows]
    order = sorted((i for i in range(len(rows)) if i not in leave), key=lambda i: (distances[i], i))
    return order, [distances[i] for i in order]


@pytest.mark.parametrize("direction", SIDES)
def test_a_search_by_name_is_the_cosine_order(client: TestClient, index: Index, direction: str) -> None:
    query, archive = SIDES[direction]
    vector = np.asarray(index.vectors(query), np.float64)[2]
    order, distances = cosine_order(vector, np.asarray(index.vectors(archive), np.float64), {2})
    found = answer(client, patch=index.names_s2[2], direction=direction)
    assert [result["position"] for result in found["results"]] == order
    assert [result["distance"] for result in found["results"]] == pytest.approx(distances, abs=1e-5)
    assert [result["rank"] for result in found["results"]] == [1, 2, 3, 4, 5]
    assert (found["kept"], found["size"], found["query"]["name_s2"]) == (5, 6, index.names_s2[2])


def test_either_sensors_name_asks_the_same(client: TestClient, index: Index) -> None:
    one, other = (answer(client, patch=names[4])["results"] for names in (index.names_s1, index.names_s2))
    assert one == other


def test_a_place_asks_with_its_patch(client: TestClient, index: Index) -> None:
    place = [float(index.catalogue.longitude[3]), float(index.catalogue.latitude[3])]
    assert answer(client, at=place)["query"]["position"] == 3


def test_a_vector_asks(client: TestClient, index: Index) -> None:
    vector = np.asarray(index.vectors("s1"), np.float64)[1]
    found = answer(client, vector=vector.tolist(), direction="s1_s1")
    assert found["results"][0]["position"] == 1
    assert found["results"][0]["distance"] == pytest.approx(0, abs=1e-5)


def test_get_answers_like_post(client: TestClient, index: Index) -> None:
    words = {
        "patch": index.names_s2[0],
        "direction": "s2_s1",
        "k": "3",
        "box": "-20,30,40,70",
        "without_label": "Marine waters",
    }
    got = client.get("/api/search", params=words).json()
    posted = answer(client, patch=index.names_s2[0], direction="s2_s1", k=3,
                    filters={"box": [-20, 30, 40, 70], "without_labels": ["Marine waters"]})  # fmt: skip
    assert got["results"] == posted["results"]
    assert len(got["results"]) == 3


def test_filters_apply_before_the_search(client: TestClient, index: Index) -> None:
    label = index.labels_of(5)[0]
    wanted = {i for i in range(6) if label in index.labels_of(i)} - {0}
    found = answer(client, patch=index.names_s2[0], k=1000, filters={"labels": [label]})
    assert {result["position"] for result in found["results"]} == wanted
    assert found["kept"] == len(wanted)


def test_marks_are_rocchio(client: TestClient, index: Index) -> None:
    rows = np.asarray(index.vectors("fused"), np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    query = 2 * (units[0] + units[3]) / 2 - units[5]
    order, _ = cosine_order(query, rows, {0, 3, 5})
    found = answer(client, patch=index.names_s2[0], like=[index.names_s2[3]], unlike=[index.names_s1[5]])
    assert [result["position"] for result in found["results"]] == order


def test_shared_labels_are_those_of_the_query(client: TestClient, index: Index) -> None:
    own = set(index.labels_of(1))
    for result in answer(client, patch=index.names_s2[1])["results"]:
        assert set(result["shared"]) == own & set(index.labels_of(result["position"]))


def test_the_second_run_answers_with_its_own_vectors(client: TestClient, index: Index, runs: list[Any]) -> None:
    other = runs[1].index
    order, _ = cosine_order(
        np.asarray(other.vectors("s1"), np.float64)[0], np.asarray(other.vectors("s1"), np.float64), {0}
    )
    found = answer(client, run=1, patch=index.names_s2[0], direction="s1_s1")
    assert found["run"] == "encoder1"
    assert [result["position"] for result in found["results"]] == order
    assert all(index.names_s2[result["on_map"]] == result["name_s2"] for result in found["results"])


def test_similarity_orders_all_patches(client: TestClient, index: Index) -> None:
    found = client.post("/api/similarity", json={"patch": index.names_s2[2]})
    values = np.frombuffer(found.content, np.uint8)
    order, _ = cosine_order(*(lambda rows: (rows[2], rows))(np.asarray(index.vectors("fused"), np.float64)), set())
    assert len(values) == 6
    assert values[order[0]] == 0
    assert values[order[-1]] == 254
    assert (np.diff(values[order].astype(int)) >= 0).all()


def test_a_patch_is_told_by_name_and_position(client: TestClient, index: Index) -> None:
    by_name, by_position = client.get(f"/api/patch/{index.names_s1[3]}").json(), client.get("/api/position/3").json()
    assert by_name == by_position
    assert by_name["labels"] == list(index.labels_of(3))
    assert client.get("/api/surprise").json()["position"] in range(6)


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_thumbnails_are_pictures_made_once(
    client: TestClient, index: Index, runs: list[Any], sensor: str, monkeypatch
) -> None:
    path = f"/api/thumbnail/{index.names_s2[1]}/{sensor}"
    first = client.get(path)
    assert first.headers["content-type"] == "image/jpeg"
    import io

    assert Image.open(io.BytesIO(first.content)).size == (120, 120)
    monkeypatch.setattr(runs[0].thumbnails, "_values", None)
    assert client.get(path).content == first.content


def test_thumbnails_stay_within_their_bytes(runs: list[Any]) -> None:
    from bigearthnet_cbir.serve.server import open_thumbnails

    thumbnails = open_thumbnails(runs[0].index)
    thumbnails._most = 10_000
    for position in range(6):
        thumbnails.jpeg("s2", position)
    assert sum(map(len, thumbnails._kept.values())) == thumbnails._bytes <= 10_000


def test_the_catalogue_holds_every_column(client: TestClient, index: Index) -> None:
    packed = client.get("/api/catalogue", headers={"accept-encoding": "identity"}).content
    length = int(np.frombuffer(packed[:4], "<u4")[0])
    head = json.loads(packed[4 : 4 + length])
    body = packed[4 + length :]

    def column(name: str) -> np.ndarray:
        kind, at = head["columns"][name]["type"], head["columns"][name]["at"]
        assert (4 + length + at) % 4 == 0
        return np.frombuffer(body, f"<{kind}", head["size"], at)

    assert head["size"] == 6
    assert column("longitude") == pytest.approx(index.catalogue.longitude, abs=1e-5)
    assert column("labels").tolist() == [
        sum(1 << c for c in range(19) if index.labels[i][c]) for i in range(6)
    ]  # fmt: skip
    for name in ("country", "season", "split"):
        told = [head["values"][name][code] for code in column(name)]
        assert told == list(getattr(index.catalogue, name))
    epoch = np.datetime64("1970-01-01")
    assert [epoch + int(day) for day in column("day")] == list(index.catalogue.date_s2)


def test_the_catalogue_is_sent_once(client: TestClient) -> None:
    first = client.get("/api/catalogue")
    assert first.headers["content-encoding"] == "gzip"
    again = client.get("/api/catalogue", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_names_are_completed(client: TestClient, index: Index) -> None:
    whole = index.names_s2[0]
    assert whole in client.get("/api/names", params={"prefix": whole[:-2]}).json()["names"]
    assert client.get("/api/names", params={"prefix": "x"}).json()["names"] == []


@pytest.mark.parametrize(
    ("kind", "sign"), [("csv", "rank,distance,"), ("geojson", '"FeatureCollection"'), ("html", "<!doctype html>")]
)
def test_exports_hold_every_result(client: TestClient, index: Index, kind: str, sign: str) -> None:
    found = client.post("/api/export", json={"patch": index.names_s2[0], "format": kind})
    assert sign in found.text[:200].replace("{\n ", "{")
    assert all(name in found.text for name in index.names_s2[1:6])
    assert found.headers["content-disposition"] == f'attachment; filename="similar_patches.{kind}"'


def test_health_tells_what_there_is(client: TestClient, index: Index) -> None:
    told = client.get("/api/health").json()
    assert told["status"] == "ok"
    assert [run["run"] for run in told["runs"]] == ["encoder0", "encoder1"]
    assert set(told["splits"]) == set(index.catalogue.split)
    assert told["pictures"]


def test_the_api_describes_itself_and_loads_no_documentation_from_elsewhere(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert {
        "/api/search",
        "/api/patch/{name}",
        "/api/thumbnail/{name}/{sensor}",
        "/api/catalogue",
        "/api/health",
    } <= set(described["paths"])
    assert [client.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]


def test_fifty_clients_at_once_get_what_one_gets(address: str, index: Index) -> None:
    import httpx

    questions = [{"patch": index.names_s2[i % 6], "k": 1 + i % 5, "direction": list(SIDES)[i % 5]} for i in range(50)]
    alone = [httpx.post(f"{address}/api/search", json=question).json()["results"] for question in questions]
    together = threading.Barrier(50)

    def ask(question: dict[str, Any]) -> list[Any]:
        with httpx.Client(timeout=60) as own:
            together.wait()
            return own.post(f"{address}/api/search", json=question).json()["results"]

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(ask, questions)) == alone
