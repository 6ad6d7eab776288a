"""What runs in the browser itself: keys, the mouse over the map, saving a file; equal scales."""

from __future__ import annotations

HANDS = """
// Called at every change of size; the page may have been built anew since.
if (window.xrdpipe?.wish === wish) return
window.xrdpipe?.keys.abort()
window.xrdpipe = {wish, keys: new AbortController()}
// One request at a time is under way; what comes meanwhile is added up, so that nothing piles up
// behind a slow line.
const later = {right: 0, down: 0, at: null}
let sent = 0
function send() {
  const waiting = done.data.n[0] < wish.data.n[0] && performance.now() - sent < 2000
  if (waiting || !(later.right || later.down || later.at)) return
  const [x, y, kind] = later.at ? [...later.at, "over"] : [later.right, later.down, "step"]
  later.right = later.down = 0
  later.at = null
  sent = performance.now()
  wish.data = {n: [wish.data.n[0] + 1], kind: [kind], x: [x], y: [y]}
}
done.change.connect(send)
const arrows = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}
document.addEventListener("keydown", (event) => {
  const on = event.composedPath()[0]
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(on.tagName) || /noUi/.test(on.className)
  const step = arrows[event.key]
  if (!step || typing || event.ctrlKey || event.altKey || event.metaKey) return
  event.preventDefault()
  const far = event.shiftKey ? 10 : 1
  later.right += far * step[0]
  later.down += far * step[1]
  send()
}, {signal: window.xrdpipe.keys.signal})
map.on_event("mousemove", (event) => {
  if (!follow.active) return
  later.at = [event.x, event.y]
  send()
})
file.change.connect(() => {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(new Blob([file.data.text[0]], {type: "text/plain"}))
  link.download = file.data.name[0]
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10000)
})
"""

EQUAL_SCALE = """
if (map.properties.inner_width.is_unset || map.properties.inner_height.is_unset) return
const [width, height] = [map.inner_width, map.inner_height]
if (!(width > 0 && height > 0 && extent.data.left)) return
const [left, right, top, bottom] = ["left", "right", "top", "bottom"].map((k) => extent.data[k][0])
let [wide, high] = [right - left, bottom - top]
if (extent.data.equal[0]) {
  const scale = Math.max(wide / width, high / height)
  wide = scale * width
  high = scale * height
}
const [x, y] = [(left + right) / 2, (top + bottom) / 2]
const [x0, x1, y0, y1] = [x - wide / 2, x + wide / 2, y + high / 2, y - high / 2]
map.x_range.setv({start: x0, end: x1, reset_start: x0, reset_end: x1})
map.y_range.setv({start: y0, end: y1, reset_start: y0, reset_end: y1})
"""
