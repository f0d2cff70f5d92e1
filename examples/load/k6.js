// k6: k6 run -e URL=http://127.0.0.1:8080 examples/load/k6.js. Open loop: 500 requests/s, whatever the server does.
import http from "k6/http";
import { check } from "k6";

const digit = open("digit.bin", "b");
const address = `${__ENV.URL || "http://127.0.0.1:8080"}/models/digits/predict`;

export const options = {
  scenarios: {
    steady: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE || 500),
      timeUnit: "1s",
      duration: __ENV.DURATION || "10s",
      preAllocatedVUs: 64,
    },
  },
  thresholds: {
    http_req_failed: ["rate==0"],
    http_req_duration: [`p(99)<${__ENV.P99_MS || 1000}`],
    checks: ["rate==1"],
  },
};

const headers = { "Content-Type": "application/octet-stream", Accept: "application/json" };

export default function () {
  const answer = http.post(address, digit, { headers });
  check(answer, { "it is a 3": (a) => a.json("predictions.0.label") === "3" });
}
