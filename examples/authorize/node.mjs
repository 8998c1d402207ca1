// Who may connect? Pipeward asks here at each handshake and refresh; docs/authorization.md has the whole contract.
// PIPEWARD_SECRET=… node examples/authorize/node.mjs
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

// Your session store.
const sessions = new Map([
  ["ann-session", { id: "s-1", user: { id: "ann", name: "Ann", role: "admin", team: "red", tenant: "acme", features: ["chat"] } }],
]);

// The part that is yours: the answer, or null to refuse.
function authorize(call) {
  const cookie = /(?:^|; )session=([^;]+)/.exec(call.headers.cookie ?? "")?.[1];
  const session = sessions.get(cookie);
  if (!session) return null;
  return {
    user: session.user,
    pipes: { [`user-${session.user.id}`]: { subscribe: true } },
    session: session.id,
    expires_at: Date.now() + 3_600_000,
  };
}

// Whether Pipeward said this, in the last five minutes.
function isSigned(header, body) {
  const [, time, signature] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(header ?? "") ?? [];
  if (!signature || Math.abs(Date.now() / 1000 - time) > 300) return false;
  const own = createHmac("sha256", process.env.PIPEWARD_SECRET).update(`${time}.`).update(body).digest();
  return timingSafeEqual(own, Buffer.from(signature, "hex"));
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  // 400 and not 401: whoever asks is not Pipeward, or the secrets differ; the client has done nothing wrong.
  if (!isSigned(request.headers["x-pipeward-signature"], body)) return response.writeHead(400).end();
  const call = JSON.parse(body);
  if (call.kind !== "connect" && call.kind !== "refresh") return response.writeHead(400).end();
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(authorize(call)));
});
if (!process.env.PIPEWARD_SECRET) throw new Error("PIPEWARD_SECRET is not set");
server.listen(process.env.PORT ?? 3000, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
