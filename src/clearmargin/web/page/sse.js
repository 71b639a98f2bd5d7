/** Server-sent events from a body that was fetched, which EventSource cannot with a token. */

/** @typedef {{ event: string, data: string, id: string | null }} ServerEvent */

/** Takes text as it comes and gives the events that are complete. @returns {(text: string) => ServerEvent[]} */
export function makeParser() {
  let rest = "";
  /** @type {string | null} */
  let id = null;
  return (text) => {
    rest += text;
    const half = rest.endsWith("\r") ? "\r" : ""; // its \n may come with the next piece
    const blocks = rest.slice(0, rest.length - half.length).replace(/\r\n?/g, "\n").split("\n\n");
    rest = (blocks.pop() ?? "") + half;
    /** @type {ServerEvent[]} */
    const events = [];
    for (const block of blocks) {
      let event = "message";
      /** @type {string[]} */
      const data = [];
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "event") event = value;
        else if (field === "data") data.push(value);
        else if (field === "id") id = value;
      }
      if (data.length) events.push({ event, data: data.join("\n"), id });
    }
    return events;
  };
}

/** @param {ReadableStream<Uint8Array>} body @returns {AsyncGenerator<ServerEvent>} */
export async function* readEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parse = makeParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parse(decoder.decode(value, { stream: true }));
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
