"""locust: `locust -f examples/load/locustfile.py --host http://127.0.0.1:8080`, then its page.

Closed loop: each user sends its next request when the last one is answered.
"""

from pathlib import Path

from locust import FastHttpUser, task

DIGIT = (Path(__file__).parent / "digit.bin").read_bytes()
HEADERS = {"Content-Type": "application/octet-stream", "Accept": "application/json"}


class Reader(FastHttpUser):
    """A user that sends the same digit again and again."""

    @task
    def predict(self) -> None:
        """Ask once, and count every answer but a 3 as a failure."""
        route = "/models/digits/predict"
        with self.client.post(route, data=DIGIT, headers=HEADERS, catch_response=True) as answer:
            if not answer.ok:
                answer.failure(f"status {answer.status_code}")
            elif answer.json()["predictions"][0]["label"] != "3":
                answer.failure(f"not a 3: {answer.text}")
