// Builds what the browser gets, from the locked packages in node_modules:
//   page      worker_agent/page/dist: the script that makes the load, automerge's wasm, index.html
//   examples  worker_agent/examples/dist: the pages that the example journeys drive
//   charts    reports/templates/vendor: uPlot, which reports carry inside themselves
import { copyFile, mkdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import path from 'node:path'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const page = path.join(root, 'worker_agent', 'page')
const examples = path.join(root, 'worker_agent', 'examples')
const modules = path.join(root, 'node_modules')
const wasm = path.join(modules, '@automerge/automerge/dist/automerge.wasm')

// Automerge's wasm is a file beside the script, which the page fetches itself.
const bundled = {
  bundle: true,
  format: 'esm',
  platform: 'browser',
  target: 'chrome120',
  minify: true,
  sourcemap: true,
  legalComments: 'none',
  logLevel: 'warning',
}

async function copy(from, to) {
  await mkdir(path.dirname(to), { recursive: true })
  await copyFile(from, to)
}

async function buildPage() {
  const dist = path.join(page, 'dist')
  await build({
    ...bundled,
    entryPoints: [path.join(page, 'src', 'main.js')],
    outfile: path.join(dist, 'page.js'),
    // The page uses Automerge's WASM core itself.
    alias: {
      'automerge-core': path.join(
        modules,
        '@automerge/automerge/dist/mjs/wasm_bindgen_output/web/automerge_wasm.js',
      ),
    },
  })
  await copy(wasm, path.join(dist, 'automerge.wasm'))
  await copy(path.join(page, 'src', 'index.html'), path.join(dist, 'index.html'))
}

async function buildExamples() {
  const dist = path.join(examples, 'dist')
  await build({
    ...bundled,
    entryPoints: [path.join(examples, 'counter.js')],
    outfile: path.join(dist, 'counter.js'),
  })
  await copy(wasm, path.join(dist, 'automerge.wasm'))
  await copy(path.join(examples, 'counter.html'), path.join(dist, 'counter.html'))
}

async function copyCharts() {
  for (const name of ['uPlot.iife.min.js', 'uPlot.min.css']) {
    await copy(
      path.join(modules, 'uplot/dist', name),
      path.join(root, 'reports/templates/vendor', name),
    )
  }
}

const targets = { page: buildPage, examples: buildExamples, charts: copyCharts }
const wanted = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(targets)
for (const name of wanted) {
  if (!(name in targets)) {
    console.error(`build: there is no target ${name}; choose ${Object.keys(targets).join(' or ')}`)
    process.exit(2)
  }
  try {
    await targets[name]()
  } catch (error) {
    // esbuild has said already what is wrong with which line.
    if (!error.errors) console.error(`build: ${error.message}`)
    process.exit(1)
  }
}
