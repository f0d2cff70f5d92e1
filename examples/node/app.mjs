// Digits on a page, with Node.js alone: `node examples/node/app.mjs`, then http://127.0.0.1:3000.
//
// The picture goes to the server as it came, and the server decodes it. `fetch` keeps its connections. When a browser
// leaves, the signal ends the request to the server too, which drops the row.
import { createServer } from "node:http";

const server = process.env.INFERENCE_URL || "http://127.0.0.1:8080";
const port = Number(process.env.PORT || 3000);
const LARGEST = 8 << 20; // bytes of a picture

const PAGE = `<!doctype html>
<title>Digits</title>
<form><label>A digit, as a picture <input type="file" name="picture" accept="image/*" required></label>
<button>Read</button></form><p role="status"></p>
<script>
document.forms[0].onsubmit = async (event) => {
  event.preventDefault();
  const body = event.target.picture.files[0];
  const answer = await fetch("digits", { method: "POST", body, headers: { "Content-Type": body.type } });
  document.querySelector("p").textContent = await answer.text();
};
</script>`;

async function bodyOf(request) {
  const pieces = [];
  let size = 0;
  for await (const piece of request) {
    size += piece.length;
    if (size > LARGEST) throw new RangeError("too large");
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function digits(request, response) {
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  setTimeout(() => gone.abort(), 10_000).unref();
  const headers = { "Content-Type": request.headers["content-type"] || "application/octet-stream" };
  const body = await bodyOf(request);
  const answer = await fetch(`${server}/models/digits/predict`, { method: "POST", body, headers, signal: gone.signal });
  const result = await answer.json();
  if (answer.ok) {
    const { label, probability } = result.predictions[0];
    return response.end(`It is a ${label} (${Math.round(100 * probability)}%).`);
  }
  const seconds = answer.headers.get("retry-after");
  if (seconds) response.setHeader("Retry-After", seconds);
  response.statusCode = answer.status;
  const otherwise = answer.status < 500 ? "That is no picture." : "Digits cannot be read now.";
  response.end(seconds ? `Many ask just now. Try again in ${seconds} s.` : otherwise);
}

createServer((request, response) => {
  const start = request.method === "GET" && request.url === "/";
  response.setHeader("Content-Type", `text/${start ? "html" : "plain"}; charset=utf-8`);
  if (start) return response.end(PAGE);
  if (request.method !== "POST" || request.url !== "/digits") return response.writeHead(404).end();
  digits(request, response).catch(() => response.writeHead(502).end("Digits cannot be read now."));
}).listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}`));
