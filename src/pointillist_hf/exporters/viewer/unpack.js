// SPDX-License-Identifier: Apache-2.0
// Reads the tables of an avatar, which `packed_arrays.py` wrote: zlib, then differences down the
// columns, whose bytes lie in planes, lowest bytes first.

"use strict";

/** The bytes of base64 text that zlib has compressed. */
async function inflate(text) {
  if (typeof DecompressionStream === "undefined")
    throw new Error(
      "This browser is too old for this page: it has no DecompressionStream. " +
        "Chrome or Edge 80, Safari 16.4, Firefox 113 and what came after them have it.",
    );
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new DecompressionStream("deflate"), writer = stream.writable.getWriter();
  // What fails in writing fails in reading too, and is reported there.
  Promise.all([writer.write(packed), writer.close()]).catch(() => {});
  return new Uint8Array(await new Response(stream.readable).arrayBuffer());
}

/** Tables by name, row after row. */
function readTables(entries, bytes) {
  const tables = {};
  let start = 0;
  for (const entry of entries) {
    tables[entry.name] = readTable(entry, bytes, start);
    start += entry.rows * entry.columns * entry.width;
  }
  return tables;
}

/** The table whose planes begin at a byte. */
function readTable({ rows, columns, width, step }, bytes, start) {
  const size = rows * columns, table = new Float32Array(size);
  const spare = 32 - 8 * width; // sums are signed numbers of `width` bytes
  for (let column = 0; column < columns; column++) {
    let sum = 0;
    for (let row = 0; row < rows; row++) {
      let difference = 0;
      for (let plane = 0; plane < width; plane++)
        difference |= bytes[start + plane * size + column * rows + row] << (8 * plane);
      sum = ((sum + difference) << spare) >> spare;
      table[row * columns + column] = sum * step;
    }
  }
  return table;
}
