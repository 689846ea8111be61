// A service that scores with a bundle of newsrec in Node.js, with onnxruntime-node or onnxruntime-web.
//
//     npm install && node service.mjs BUNDLE
//
// The same as service.py beside it: worked examples first, then a request on each line in, its scores on each line out.

import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [name, ort] = await runtime();
const ARRAYS = { float32: Float32Array, int64: BigInt64Array, string: Array };
// Ids above 2^53 must come as text: JSON.parse would round them.
const VALUES = { float32: (v) => (v === null ? NaN : v), int64: BigInt, string: String };

async function runtime() {
  for (const name of process.env.ORT_PACKAGE?.split(",") ?? ["onnxruntime-node", "onnxruntime-web"]) {
    try {
      return [name, await import(name)];
    } catch (error) {
      if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
    }
  }
  throw new Error("expected onnxruntime-node or onnxruntime-web, found neither: npm install");
}

async function load(bundle, signature) {
  const told = JSON.parse(await readFile(join(bundle, signature), "utf8"));
  const session = await ort.InferenceSession.create(await readFile(join(bundle, told.model)));
  return { told, session };
}

function tensor({ name, dtype, shape }, inputs) {
  const nested = inputs[name];
  const sizes = shape.map((size, axis) => (typeof size === "number" ? size : lengthOf(nested, axis)));
  const flat = nested.flat(shape.length - 1).map(VALUES[dtype]);
  return new ort.Tensor(dtype, dtype === "string" ? flat : ARRAYS[dtype].from(flat), sizes);
}

function lengthOf(nested, axis) {
  return axis === 0 ? nested.length : nested.length ? lengthOf(nested[0], axis - 1) : 0;
}

async function scores({ told, session }, inputs) {
  const feeds = Object.fromEntries(told.inputs.map((row) => [row.name, tensor(row, inputs)]));
  const found = (await session.run(feeds))[told.outputs[0].name];
  return unflat(Array.from(found.data), found.dims);
}

function unflat(flat, [outer, ...inner]) {
  if (!inner.length) return flat;
  const step = inner.reduce((a, b) => a * b);
  return Array.from({ length: outer }, (_, i) => unflat(flat.slice(i * step, (i + 1) * step), inner));
}

async function check(model) {
  const found = (await scores(model, model.told.example.inputs)).flat();
  const wanted = model.told.example.scores.flat();
  const { rtol, atol } = model.told.tolerance;
  const differences = wanted.map((value, i) => Math.abs(value - found[i]));
  if (differences.some((difference, i) => !(difference <= atol + rtol * Math.abs(wanted[i])))) {
    throw new Error(`${model.told.model}: expected ${wanted}, found ${found}`);
  }
  return Math.max(...differences);
}

const bundle = process.argv[2];
const models = new Map();
for (const file of (await readdir(bundle)).filter((name) => name.endsWith(".signature.json")).sort()) {
  const model = await load(bundle, file);
  models.set(model.told.model, model);
  console.error(`${model.told.model}: example reproduced with ${name}, largest difference ${(await check(model)).toExponential(1)}`);
}
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  console.log(JSON.stringify({ scores: await scores(models.get(asked.model), asked.inputs) }));
}
