// node benchmarks/build_floor.mjs FOLDER: bundles the floor's page into a folder.
import { copyFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { build } from 'esbuild'

const [folder] = process.argv.slice(2)
const automerge = 'node_modules/@automerge/automerge/dist'
await build({
  entryPoints: ['benchmarks/floor.js'],
  outfile: path.join(folder, 'page.js'),
  bundle: true,
  format: 'esm',
  platform: 'browser',
  target: 'chrome120',
  minify: true,
  alias: { 'automerge-core': path.resolve(automerge, 'mjs/wasm_bindgen_output/web/automerge_wasm.js') },
  logLevel: 'warning',
})
await copyFile(path.join(automerge, 'automerge.wasm'), path.join(folder, 'automerge.wasm'))
await writeFile(path.join(folder, 'index.html'), '<!doctype html><script type="module" src="page.js"></script>')
