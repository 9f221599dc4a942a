'use strict'
const data = JSON.parse(document.getElementById('data').textContent)
const root = document.documentElement
const print = matchMedia('print')
const plots = []
const SYNC = 'run'

// Colours are taken from the style sheet, resolved for the theme in force.
const probe = document.body.appendChild(document.createElement('i'))
probe.hidden = true
function colour(name, alpha = 1) {
  probe.style.color = `var(--${name})`
  const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g)
  return `rgba(${r}, ${g}, ${b}, ${alpha})`
}
const ROLES = {
  // What was planned is a broad pale line, so that what lies on it hides nothing.
  wanted: { colour: 'c-grey', width: 6, alpha: 0.38 },
  good: { colour: 'c-blue' },
  fine: { colour: 'c-sky', dash: [2, 3] },
  bad: { colour: 'c-vermillion' },
  late: { colour: 'c-purple' },
  relay: { colour: 'c-green' },
  own: { colour: 'c-green', dash: [7, 5] },
  p50: { colour: 'c-green' },
  p95: { colour: 'c-blue' },
  p99: { colour: 'c-vermillion', width: 1 },
}
const KINDS = ['c-blue', 'c-vermillion', 'c-green', 'c-purple', 'c-amber', 'c-sky', 'c-brown', 'c-navy', 'c-olive', 'c-grey']
function look(role) {
  if (ROLES[role]) return ROLES[role]
  const place = Number(role.slice(4))
  return { colour: KINDS[place % KINDS.length], dash: place >= KINDS.length ? [4, 3] : undefined }
}

const two = (n) => String(n).padStart(2, '0')
function runTime(s) {
  if (s == null) return '–'
  const sign = s < 0 ? '−' : ''
  const whole = Math.round(Math.abs(s))
  const hours = Math.floor(whole / 3600)
  const rest = `${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`
  return sign + (hours ? `${hours}:${rest}` : rest)
}
const clock = (s) => new Date(data.origin_ms + s * 1000).toISOString().slice(11, 19)
function number(value) {
  if (value == null) return '–'
  const size = Math.abs(value)
  const digits = size >= 100 || value === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3
  return value.toLocaleString('en-GB', { maximumFractionDigits: digits })
}
function phaseAt(s) {
  const phase = data.phases.find((p) => s >= p.from_s && s < p.to_s)
  return phase ? phase.name : ''
}
const full = () => {
  const at = data.at_s.filter((s) => s != null)
  const from = Math.min(at[0], ...data.phases.map((p) => p.from_s))
  const to = Math.max(at[at.length - 1], ...data.phases.map((p) => p.to_s))
  return { min: from, max: to > from ? to : from + 1 }
}
const whole = data.at_s.length ? full() : { min: 0, max: 1 }
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif'

// Phases are shaded, every other one, and named; windows of findings are tinted and numbered.
function drawBackground(u) {
  const { ctx, bbox } = u
  const ratio = devicePixelRatio
  ctx.save()
  ctx.beginPath()
  ctx.rect(bbox.left, bbox.top - 16 * ratio, bbox.width, bbox.height + 16 * ratio)
  ctx.clip()
  ctx.font = FONT.replace('12', String(Math.round(11 * ratio)))
  ctx.textBaseline = 'alphabetic'
  data.phases.forEach((phase, index) => {
    const left = u.valToPos(phase.from_s, 'x', true)
    const right = u.valToPos(phase.to_s, 'x', true)
    if (right < bbox.left || left > bbox.left + bbox.width) return
    ctx.fillStyle = index % 2 ? colour('shade') : colour('shade', 0.35)
    ctx.fillRect(left, bbox.top, right - left, bbox.height)
    const from = Math.max(left, bbox.left) + 4 * ratio
    const room = Math.min(right, bbox.left + bbox.width) - from
    if (room > ctx.measureText(phase.name).width) {
      ctx.fillStyle = colour('quiet')
      ctx.textAlign = 'left'
      ctx.fillText(phase.name, from, bbox.top - 5 * ratio)
    }
  })
  for (const finding of data.findings) {
    const left = u.valToPos(finding.from_s, 'x', true)
    const width = Math.max(u.valToPos(finding.to_s, 'x', true) - left, 2 * ratio)
    const name = finding.severity === 'note' ? 'c-grey' : finding.severity === 'warning' ? 'c-amber' : 'c-vermillion'
    // One that takes in a good part of the run would only darken everything: its line says enough.
    if (finding.to_s - finding.from_s < (whole.max - whole.min) * 0.06) {
      ctx.fillStyle = colour(name, 0.2)
      ctx.fillRect(left, bbox.top, width, bbox.height)
    }
    ctx.fillStyle = colour(name)
    ctx.fillRect(left, bbox.top, Math.max(width, 2 * ratio), 2 * ratio)
  }
  ctx.restore()
}
// Numbers of findings stand where their windows begin, one below another if they are close.
function drawPins(u) {
  const { ctx, bbox } = u
  const ratio = devicePixelRatio
  ctx.save()
  ctx.font = `600 ${Math.round(10 * ratio)}px system-ui, sans-serif`
  ctx.setLineDash([])
  ctx.textAlign = 'center'
  ctx.textBaseline = 'middle'
  const rows = []
  for (const finding of data.findings) {
    const left = u.valToPos(finding.from_s, 'x', true)
    const right = u.valToPos(finding.to_s, 'x', true)
    if (right < bbox.left || left > bbox.left + bbox.width) continue
    const middle = Math.max(left, bbox.left) + 8 * ratio
    let row = rows.findIndex((taken) => middle - taken > 17 * ratio)
    if (row < 0) row = rows.length
    if (row > 2) continue
    rows[row] = middle
    const height = bbox.top + (11 + 17 * row) * ratio
    ctx.fillStyle = colour('raised')
    ctx.strokeStyle = colour(finding.severity === 'note' ? 'c-grey' : finding.severity === 'warning' ? 'c-amber' : 'c-vermillion')
    ctx.lineWidth = 1.2 * ratio
    ctx.beginPath()
    ctx.arc(middle, height, 7 * ratio, 0, 2 * Math.PI)
    ctx.fill()
    ctx.stroke()
    ctx.fillStyle = colour('ink')
    ctx.fillText(String(finding.number), middle, height + 0.5 * ratio)
  }
  ctx.restore()
}

let moving = false
function follow(source) {
  if (moving) return
  moving = true
  const { min, max } = source.scales.x
  for (const plot of plots) if (plot.timed && plot.u !== source) plot.u.setScale('x', { min, max })
  moving = false
  later(drawHistograms)
}
const waiting = new Set()
function later(task) {
  if (waiting.has(task)) return
  waiting.add(task)
  requestAnimationFrame(() => { waiting.delete(task); task() })
}
function zoom(range) {
  for (const plot of plots) if (plot.timed) plot.u.setScale('x', range)
}

const axis = (more) => ({
  stroke: () => colour('quiet'),
  font: FONT,
  grid: { stroke: () => colour('rule'), width: 1 },
  ticks: { show: false },
  ...more,
})
const timeAxis = () => axis({
  size: 44,
  space: 88,
  grid: { show: false },
  incrs: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400],
  values: (u, ticks) => ticks.map((s) => `${runTime(s)}\n${clock(s)}`),
})
// On a log scale only 1, 2 and 5 are named, or powers of ten when there are many.
const logTicks = (u, ticks) => {
  const wide = ticks[ticks.length - 1] / ticks[0] > 2000
  return ticks.map((value) => {
    if (!value) return null
    const lead = value / 10 ** Math.floor(Math.log10(value) + 1e-9)
    return Math.abs(lead - 1) < 0.01 || (!wide && (Math.abs(lead - 2) < 0.01 || Math.abs(lead - 5) < 0.01)) ? number(value) : null
  })
}
const width = (element) => Math.max(260, Math.floor(element.getBoundingClientRect().width))
const height = () => (innerWidth < 640 ? 210 : 240)

function timed(element, extra) {
  return {
    width: width(element),
    height: extra.tall ? 300 : height(),
    padding: [20, 30, 0, 0],
    legend: { live: true },
    ...extra.options,
    cursor: {
      sync: {
        key: SYNC,
        setSeries: false,
        scales: ['x', null],
        // Zooming is passed on by `follow`, which also knows of buttons.
        filters: { pub: (type) => type === 'mousemove' || type === 'mouseleave' },
      },
      drag: { x: true, y: false, setScale: true },
      points: { size: 6 },
      bind: { dblclick: () => () => { zoom(full()); return null } },
      ...extra.cursor,
    },
    hooks: {
      drawClear: [drawBackground],
      draw: [...(extra.draw || []), drawPins],
      setScale: [(u, key) => key === 'x' && follow(u)],
    },
  }
}

function drawAlarms(chart) {
  return (u) => {
    const { ctx, bbox } = u
    ctx.save()
    ctx.fillStyle = colour('c-vermillion')
    for (const at of chart.alarms) {
      const from = u.valToPos(at - data.point_s / 2, 'x', true)
      const to = u.valToPos(at + data.point_s / 2, 'x', true)
      if (to < bbox.left || from > bbox.left + bbox.width) continue
      ctx.fillRect(from, bbox.top + bbox.height - 7 * devicePixelRatio, Math.max(to - from, 1.5 * devicePixelRatio), 7 * devicePixelRatio)
    }
    ctx.restore()
  }
}

function drawChart(chart, log) {
  const element = document.getElementById(`plot-${chart.key}`)
  if (!element || !chart.series.length || !data.at_s.length) return
  const old = plots.findIndex((plot) => plot.key === chart.key)
  const range = old >= 0 ? { ...plots[old].u.scales.x } : plots.length ? { ...plots[0].u.scales.x } : full()
  if (old >= 0) plots.splice(old, 1)[0].u.destroy()
  const second = chart.series.find((series) => series.unit)
  const format = (u, value) => number(value)
  const options = {
    scales: {
      x: { time: false, range: (u, min, max) => [min, max], min: range.min, max: range.max },
      y: log
        ? { distr: 3, log: 10, range: (u, min, max) => (min == null ? [1, 10] : [Math.max(min, 0.05) * 0.8, max * 1.25]) }
        : { range: (u, min, max) => [0, max > 0 ? max * 1.08 : 1] },
      ...(second && { y2: { range: (u, min, max) => [0, max > 0 ? max * 1.08 : 1] } }),
    },
    axes: [
      timeAxis(),
      axis({ size: 58, space: 34, ...(log ? { values: logTicks, filter: (u, splits) => splits } : { values: (u, ticks) => ticks.map(number) }) }),
      ...(second ? [axis({ side: 1, scale: 'y2', size: 50, grid: { show: false }, values: (u, ticks) => ticks.map(number) })] : []),
    ],
    series: [
      { label: 'at', value: (u, s) => (s == null ? '–' : `${runTime(s)} · ${clock(s)} ${phaseAt(s)}`) },
      ...chart.series.map((series) => {
        const style = look(series.role)
        return {
          label: series.unit ? `${series.label} (${series.unit}, right)` : `${series.label}`,
          scale: series.unit ? 'y2' : 'y',
          stroke: () => colour(style.colour, style.alpha),
          width: style.width || 1.5,
          dash: style.dash,
          spanGaps: false,
          points: { show: data.at_s.length < 40 || undefined, size: 4 },
          value: format,
        }
      }),
    ],
  }
  const u = new uPlot(
    timed(element, { options, draw: chart.alarms.length ? [drawAlarms(chart)] : [] }),
    [data.at_s, ...chart.series.map((series) => (log ? series.values.map((v) => (v > 0 ? v : null)) : series.values))],
    element,
  )
  const plot = { key: chart.key, u, element, timed: true }
  if (old >= 0) plots.splice(old, 0, plot)
  else plots.push(plot)
}

// Latencies over time as a map: stronger cells hold more of their column's samples.
function drawMap(map) {
  const element = document.getElementById(`plot-map-${map.key}`)
  if (!element || !map.counts.length) return
  const totals = new Map()
  map.columns.forEach((column, i) => totals.set(column, (totals.get(column) || 0) + map.counts[i]))
  const low = 10 ** (Math.min(...map.buckets) / 10)
  // Room above the slowest, so that the numbers of findings hide nothing.
  const high = 10 ** ((Math.max(...map.buckets) + 7) / 10)
  const columns = [...totals.keys()]
  const middles = columns.map((column) => (column + 0.5) * map.slice_s)
  const paint = (u) => {
    const { ctx, bbox } = u
    ctx.save()
    ctx.beginPath()
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height)
    ctx.clip()
    for (let i = 0; i < map.counts.length; i++) {
      const from = u.valToPos(map.columns[i] * map.slice_s, 'x', true)
      const to = u.valToPos((map.columns[i] + 1) * map.slice_s, 'x', true)
      const top = u.valToPos(10 ** ((map.buckets[i] + 1) / 10), 'y', true)
      const bottom = u.valToPos(10 ** (map.buckets[i] / 10), 'y', true)
      const share = map.counts[i] / totals.get(map.columns[i])
      // A square root, so that the few slow ones are seen beside the many.
      ctx.fillStyle = colour('c-blue', (0.1 + 0.9 * Math.sqrt(share)).toFixed(2))
      const [x, y] = [Math.round(from), Math.round(top)]
      ctx.fillRect(x, y, Math.max(Math.round(to) - x, 1), Math.max(Math.round(bottom) - y, 1))
    }
    ctx.restore()
  }
  const options = {
    scales: {
      x: { time: false, range: (u, min, max) => [min, max], ...full() },
      y: { distr: 3, log: 10, range: () => [low, high] },
    },
    axes: [timeAxis(), axis({ size: 58, space: 34, values: logTicks, filter: (u, splits) => splits })],
    series: [
      { label: 'at', value: (u, s) => (s == null ? '–' : `${runTime(s)} · ${clock(s)} ${phaseAt(s)}`) },
      { label: 'samples in this column', stroke: 'transparent', width: 0, points: { show: false }, paths: () => null, value: (u, v, si, i) => (i == null ? '–' : number(totals.get(columns[i]))) },
    ],
  }
  const u = new uPlot(timed(element, { options, draw: [paint], cursor: { points: { show: false } } }), [middles, middles.map(() => low)], element)
  plots.push({ key: `map-${map.key}`, u, element, timed: true })
}

// How latencies are spread, in the part of the run that the time charts show.
function spread(map) {
  const first = plots.find((plot) => plot.timed)
  const { min, max } = first ? first.u.scales.x : full()
  const counts = new Map()
  let total = 0
  map.counts.forEach((count, i) => {
    const from = map.columns[i] * map.slice_s
    if (from + map.slice_s <= min || from > max) return
    counts.set(map.buckets[i], (counts.get(map.buckets[i]) || 0) + count)
    total += count
  })
  const low = Math.min(...map.buckets)
  const high = Math.max(...map.buckets) + 1
  const xs = []
  const shares = []
  for (let b = low - 1; b <= high; b++) {
    xs.push(10 ** (b / 10))
    shares.push(total ? ((counts.get(b) || 0) / total) * 100 : 0)
  }
  return { xs, shares, total }
}
function drawHistograms() {
  for (const map of data.maps) {
    const element = document.getElementById(`plot-spread-${map.key}`)
    if (!element || !map.counts.length) continue
    const key = `spread-${map.key}`
    const { xs, shares } = spread(map)
    const old = plots.find((plot) => plot.key === key)
    if (old) {
      old.u.setData([xs, shares])
      continue
    }
    const marks = (u) => {
      const { ctx, bbox } = u
      const ratio = devicePixelRatio
      ctx.save()
      ctx.font = FONT.replace('12', String(Math.round(11 * ratio)))
      let level = 0
      for (const [name, value] of Object.entries(map.quantiles)) {
        if (value == null || value <= 0) continue
        const at = u.valToPos(value, 'x', true)
        ctx.strokeStyle = ctx.fillStyle = colour(look(name).colour)
        ctx.setLineDash([4 * ratio, 3 * ratio])
        ctx.lineWidth = 1.25 * ratio
        ctx.beginPath()
        ctx.moveTo(at, bbox.top)
        ctx.lineTo(at, bbox.top + bbox.height)
        ctx.stroke()
        const text = `${name} ${number(value)} ms`
        const left = at + 6 * ratio + ctx.measureText(text).width > bbox.left + bbox.width
        ctx.textAlign = left ? 'right' : 'left'
        ctx.fillStyle = colour('ink')
        ctx.fillText(text, at + (left ? -4 : 4) * ratio, bbox.top + (10 + 14 * level++) * ratio)
      }
      ctx.restore()
    }
    const u = new uPlot(
      {
        width: width(element),
        height: height(),
        padding: [8, 14, 0, 0],
        cursor: { drag: { x: false, y: false }, points: { show: false } },
        scales: {
          x: { time: false, distr: 3, log: 10, range: (u, min, max) => [min, max] },
          y: { range: (u, min, max) => [0, max > 0 ? max * 1.12 : 1] },
        },
        axes: [
          axis({ values: (u, t) => logTicks(u, t).map((v) => (v == null ? null : `${v} ms`)), filter: (u, s) => s, space: 46 }),
          axis({ size: 52, values: (u, t) => t.map((v) => `${number(v)} %`) }),
        ],
        series: [
          { label: 'from', value: (u, v) => (v == null ? '–' : `${number(v)} ms`) },
          { label: 'share of samples', stroke: () => colour('c-blue'), fill: () => colour('c-blue', 0.22), width: 1.25, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), value: (u, v) => (v == null ? '–' : `${number(v)} %`) },
        ],
        hooks: { draw: [marks] },
      },
      [xs, shares],
      element,
    )
    plots.push({ key, u, element, timed: false })
  }
}

// The accessible table of a chart, made when it is opened: what is in view, at most 200 rows.
function cell(row, tag, text, numeric) {
  const element = row.appendChild(document.createElement(tag))
  element.textContent = text
  if (numeric) element.className = 'n'
  if (tag === 'th') element.scope = 'col'
}
function fillTable(details, heads, rows) {
  details.querySelector('.scroll')?.remove()
  const box = details.appendChild(document.createElement('div'))
  box.className = 'scroll'
  const table = box.appendChild(document.createElement('table'))
  const head = table.createTHead().insertRow()
  heads.forEach((text, i) => cell(head, 'th', text, i > 1))
  const body = table.createTBody()
  for (const values of rows) {
    const row = body.insertRow()
    values.forEach((text, i) => cell(row, 'td', text, i > 1))
  }
}
function thinRows(total) {
  const step = Math.max(1, Math.ceil(total.length / 200))
  return total.filter((_, i) => i % step === 0)
}
function openTable(details) {
  const key = details.dataset.of
  const chart = data.charts.find((c) => c.key === key)
  const plot = plots.find((p) => p.timed)
  const { min, max } = plot ? plot.u.scales.x : full()
  if (chart) {
    const inView = data.at_s.map((s, i) => i).filter((i) => data.at_s[i] >= min && data.at_s[i] <= max)
    fillTable(
      details,
      ['Run time', 'Clock (UTC)', ...chart.series.map((s) => `${s.label}, ${s.unit || chart.unit}`)],
      thinRows(inView).map((i) => [runTime(data.at_s[i]), clock(data.at_s[i]), ...chart.series.map((s) => number(s.values[i]))]),
    )
    return
  }
  const map = data.maps.find((m) => `spread-${m.key}` === key)
  if (map) {
    const { xs, shares } = spread(map)
    fillTable(details, ['From, ms', 'To, ms', 'Share of samples, %'], xs.slice(0, -1).map((x, i) => [number(x), number(xs[i + 1]), number(shares[i])]))
    return
  }
  const heat = data.maps.find((m) => `map-${m.key}` === key)
  const byColumn = new Map()
  heat.columns.forEach((column, i) => {
    const entry = byColumn.get(column) || { total: 0, most: 0, bucket: 0, top: 0 }
    entry.total += heat.counts[i]
    if (heat.counts[i] > entry.most) Object.assign(entry, { most: heat.counts[i], bucket: heat.buckets[i] })
    entry.top = heat.buckets[i]
    byColumn.set(column, entry)
  })
  const inView = [...byColumn].filter(([c]) => (c + 1) * heat.slice_s > min && c * heat.slice_s <= max)
  fillTable(
    details,
    ['Run time', 'Clock (UTC)', 'Samples', 'Most are from, ms', 'Slowest reach, ms'],
    thinRows(inView).map(([c, e]) => [runTime(c * heat.slice_s), clock(c * heat.slice_s), number(e.total), number(10 ** (e.bucket / 10)), number(10 ** ((e.top + 1) / 10))]),
  )
}

function redraw() {
  for (const plot of plots) {
    plot.u.setSize({ width: width(plot.element), height: plot.u.height })
    plot.u.redraw(false)
  }
}
function theme(next) {
  if (next) root.dataset.theme = next
  else delete root.dataset.theme
  try { localStorage.setItem('relay-load-theme', next) } catch { /* a file may have no storage */ }
  later(redraw)
}
function isDark() {
  return root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
}

if (data.at_s.length) {
  for (const chart of data.charts) drawChart(chart, chart.has_log)
  for (const map of data.maps) drawMap(map)
  drawHistograms()
}
document.getElementById('theme').addEventListener('click', () => theme(isDark() ? 'light' : 'dark'))
for (const button of document.querySelectorAll('[data-from]')) {
  button.addEventListener('click', () => {
    const from = Number(button.dataset.from)
    const to = Number(button.dataset.to)
    const margin = button.dataset.margin ? Math.max(5, (to - from) * 0.75) : 0
    zoom({ min: from - margin, max: to + margin })
    if (button.dataset.margin) document.getElementById('charts').scrollIntoView()
  })
}
for (const button of document.querySelectorAll('[data-reset]')) button.addEventListener('click', () => zoom(full()))
for (const box of document.querySelectorAll('[data-log]')) {
  box.addEventListener('change', () => drawChart(data.charts.find((c) => c.key === box.dataset.log), box.checked))
}
for (const details of document.querySelectorAll('details[data-of]')) {
  details.addEventListener('toggle', () => details.open && openTable(details))
}
addEventListener('resize', () => later(redraw))
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => later(redraw))
// A printer gets canvases of its own width, in the light theme.
print.addEventListener('change', redraw)
addEventListener('beforeprint', redraw)
addEventListener('afterprint', redraw)
root.dataset.ready = 'yes'
