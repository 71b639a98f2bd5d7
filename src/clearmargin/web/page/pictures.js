/** Pictures of the images, made here where the browser can read the file, else asked of the server. */

import { readMember } from "./zip.js";

const THUMBNAIL = 96;
const AT_ONCE = 3;

/** @typedef {import("./state.js").Item} Item */
/** @typedef {{ url: string | null }} Picture `url` is null where there is no picture */

/**
 * @param {(item: Item, model: string, signal?: AbortSignal) => Promise<import("./api.js").Explained | null>} explain
 * @param {() => void} drawn is called when a picture is there
 */
export function makePictures(explain, drawn) {
  /** @type {Map<number, { thumbnail?: Picture, large?: Picture }>} */
  const kept = new Map();
  /** @type {(() => Promise<void>)[]} */
  const waiting = [];
  let working = 0;

  async function work() {
    if (working >= AT_ONCE) return;
    const task = waiting.shift();
    if (!task) return;
    working += 1;
    try {
      await task();
    } finally {
      working -= 1;
      void work();
    }
  }

  /** @param {Item} item */
  function slot(item) {
    let found = kept.get(item.id);
    if (!found) kept.set(item.id, (found = {}));
    return found;
  }

  /** @param {Item} item @param {string} model */
  async function makeThumbnail(item, model) {
    const entry = slot(item);
    const own = await bytesOf(item);
    let url = own && (await reduced(own));
    if (!url && item.answers[model]?.probability != null) {
      const explained = await explain(item, model).catch(() => null);
      if (explained?.image) url = explained.image;
    }
    if (!kept.has(item.id)) return; // cleared meanwhile
    entry.thumbnail = { url: url || null };
    drawn();
  }

  return {
    /** The small picture, or undefined where it is not there yet; asking for it makes it. @param {Item} item @param {string} model */
    thumbnail(item, model) {
      const entry = slot(item);
      const wanted = entry.thumbnail === undefined || (entry.thumbnail?.url === null && item.answers[model]?.probability != null);
      if (wanted && !asked.has(`${item.id}/${item.answers[model] ? model : ""}`)) {
        asked.add(`${item.id}/${item.answers[model] ? model : ""}`);
        waiting.push(() => makeThumbnail(item, model));
        void work();
      }
      return entry.thumbnail;
    },
    /** The image as the file has it; url null where the browser cannot show it. @param {Item} item */
    large(item) {
      const entry = slot(item);
      if (!entry.large) {
        entry.large = { url: null };
        void bytesOf(item).then(async (bytes) => {
          if (!bytes || !(await shows(bytes)) || !kept.has(item.id)) return;
          entry.large = { url: URL.createObjectURL(bytes) };
          drawn();
        });
      }
      return entry.large;
    },
    clear() {
      for (const { thumbnail, large } of kept.values()) {
        for (const url of [thumbnail?.url, large?.url]) if (url?.startsWith("blob:")) URL.revokeObjectURL(url);
      }
      kept.clear();
      asked.clear();
      waiting.length = 0;
    },
  };
}

/** @typedef {ReturnType<typeof makePictures>} Pictures */

/** @type {Set<string>} */
const asked = new Set();

/** The bytes of one image. @param {Item} item @returns {Promise<Blob | null>} */
export async function bytesOf(item) {
  if (!item.source) return null;
  const { file, member } = item.source;
  try {
    return member === null ? file : await readMember(file, member);
  } catch {
    return null; // the file has gone from the disk
  }
}

/** @param {Blob} bytes @returns {Promise<string | null>} a PNG that covers a small square */
async function reduced(bytes) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(bytes);
  } catch {
    return null;
  }
  const side = Math.min(bitmap.width, bitmap.height);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = THUMBNAIL;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingQuality = "high";
  context.imageSmoothingEnabled = side > THUMBNAIL;
  const [x, y] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
  context.drawImage(bitmap, x, y, side, side, 0, 0, THUMBNAIL, THUMBNAIL);
  bitmap.close();
  const blob = await new Promise((/** @type {BlobCallback} */ resolve) => canvas.toBlob(resolve));
  return blob && URL.createObjectURL(blob);
}

/** @param {Blob} bytes @returns {Promise<boolean>} */
async function shows(bytes) {
  try {
    (await createImageBitmap(bytes)).close();
    return true;
  } catch {
    return false;
  }
}
