/** Members of a .zip, read in the browser, to show the images whose decisions came from the server. */

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LARGEST = 64 * 1024 * 1024;

/** @typedef {{ name: string, method: number, packed: number, size: number, at: number }} Member */

/** @type {WeakMap<Blob, Promise<Map<string, Member>>>} */
const known = new WeakMap();

/** @param {Blob & { name?: string }} file */
export function isZip(file) {
  return /\.zip$/i.test(file.name ?? "") || file.type === "application/zip";
}

/** @param {Blob} file @param {string} name @returns {Promise<Blob | null>} null where it cannot be read here */
export async function readMember(file, name) {
  let members = known.get(file);
  if (!members) known.set(file, (members = listMembers(file)));
  const member = (await members).get(name);
  if (!member || member.size > LARGEST || member.packed > LARGEST) return null;
  const header = new DataView(await file.slice(member.at, member.at + 30).arrayBuffer());
  const start = member.at + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  const packed = file.slice(start, start + member.packed);
  if (member.method === 0) return packed;
  if (member.method !== 8) return null;
  try {
    return await new Response(packed.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
  } catch {
    return null; // damaged
  }
}

/** @param {Blob} file @returns {Promise<Map<string, Member>>} */
async function listMembers(file) {
  const from = Math.max(0, file.size - 65557);
  const tail = new DataView(await file.slice(from).arrayBuffer());
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end -= 1;
  /** @type {Map<string, Member>} */
  const members = new Map();
  if (end < 0) return members;
  const at = tail.getUint32(end + 16, true);
  const directory = new DataView(await file.slice(at, at + tail.getUint32(end + 12, true)).arrayBuffer());
  const decoder = new TextDecoder();
  let place = 0;
  while (place + 46 <= directory.byteLength && directory.getUint32(place, true) === ENTRY) {
    const length = directory.getUint16(place + 28, true);
    const name = decoder.decode(new Uint8Array(directory.buffer, place + 46, Math.min(length, directory.byteLength - place - 46)));
    members.set(name, {
      name,
      method: directory.getUint16(place + 10, true),
      packed: directory.getUint32(place + 20, true),
      size: directory.getUint32(place + 24, true),
      at: directory.getUint32(place + 42, true),
    });
    place += 46 + length + directory.getUint16(place + 30, true) + directory.getUint16(place + 32, true);
  }
  return members;
}
