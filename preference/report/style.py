"""The look of a report's page; it names no other file, so that the page is whole by itself."""

STYLE = """
:root {
  color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
  --back: #ffffff; --card: #f6f7f9; --text: #1d2330; --muted: #5b6472; --grid: #dfe3e8; --line: #cfd5dd;
  --c0: #0072b2; --c1: #c34f00; --c2: #008763; --c3: #b3568a; --c4: #2f94cd; --c5: #b67c00;
  --alarm: #a3260f; --alarm-back: #fdeeea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14171c; --card: #1d2128; --text: #e7eaef; --muted: #a3adba; --grid: #343a44; --line: #3d4550;
    --c0: #57aef0; --c1: #ff9551; --c2: #3fcf9f; --c3: #e79cc8; --c4: #86d0f7; --c5: #f2b83d;
    --alarm: #ffb4a3; --alarm-back: #3a1d17;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.55 var(--sans); }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; }
.lead, figcaption, .note { color: var(--muted); }
.note { font-size: .9rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .75rem; margin: 1.5rem 0; }
dl div { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
dt { color: var(--muted); font-size: .85rem; }
dd { margin: 0; font-size: 1.25rem; font-weight: 600; overflow-wrap: anywhere; }
dd small { display: block; font-size: .85rem; font-weight: 400; color: var(--muted); }
h1, .lead, .note, figcaption, summary { overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figcaption { font-size: .9rem; max-width: 46rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: currentColor; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.charts div { max-width: 34rem; }
.reliability { max-width: 30rem; }
.table { overflow-x: auto; }
.table:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: right; padding: .4rem .75rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--muted); font-weight: 500; }
.texts th, .texts td { white-space: pre-wrap; text-align: left; vertical-align: top; font-weight: 400; }
.texts td:nth-child(odd) { text-align: right; }
.alarms { background: var(--alarm-back); color: var(--alarm); border-radius: .5rem; padding: .8rem 1rem .8rem 2.2rem;
  margin: 1rem 0; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
.clip { background: var(--card); border-radius: .5rem; padding: .75rem; margin: 0; }
.clip b { color: var(--text); }
.film { margin: 0 auto .5rem; max-width: 100%; border-radius: .25rem; background-repeat: no-repeat;
  animation: film 2s infinite; }
@keyframes film { from { background-position: 0 0; } to { background-position: var(--strip) 0; } }
body:has(#still:checked) .film { animation-play-state: paused; }
@media (prefers-reduced-motion: reduce) { .film { animation-play-state: paused; } }
details { border-top: 1px solid var(--line); padding: .6rem 0; }
summary { cursor: pointer; }
summary:focus-visible, input:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
pre { overflow-x: auto; background: var(--card); border-radius: .5rem; padding: 1rem; font-size: .85rem; }
@media print { body { background: none; } details { display: none; } figure { break-inside: avoid; } }
"""
