// Data lies in <script> elements as JSON, compressed and in base64; decoded when it is asked for.

const KEPT_BLOCKS = 60;
const decoded = new Map(); // id → promise; the oldest is forgotten first

function block(id) {
  if (!decoded.has(id)) {
    decoded.set(id, decodeBlock(document.getElementById(id).textContent));
    if (decoded.size > KEPT_BLOCKS) decoded.delete(decoded.keys().next().value);
  }
  return decoded.get(id);
}

async function decodeBlock(text) {
  const compressed = bytesOf(atob(text));
  const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// A string of characters below 256 → the bytes that it stands for.
function bytesOf(string) {
  const bytes = new Uint8Array(string.length);
  for (let i = 0; i < string.length; i++) bytes[i] = string.charCodeAt(i);
  return bytes;
}
