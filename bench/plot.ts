/** Two charts in one SVG: throughput over time, and latency by percentile. */
import type { Point } from './measures.ts';

const WIDTH = 760;
const HEIGHT = 300;
const LEFT = 70;
const RIGHT = 20;
const TOP = 40;
const BOTTOM = 45;

interface Axis {
  readonly label: string;
  /** Where a value stands, 0 to 1. */
  readonly place: (value: number) => number;
  readonly ticks: readonly number[];
}

export function plot(throughput: readonly Point[], latency: readonly Point[]): string {
  const charts = [
    chart(
      'produce: throughput',
      throughput,
      linear(
        'seconds',
        throughput.map(([x]) => x),
      ),
      linear(
        'MB/s',
        throughput.map(([, y]) => y),
      ),
    ),
    chart(
      'one record in flight: latency',
      latency,
      percentiles(latency),
      linear(
        'ms',
        latency.map(([, y]) => y),
      ),
    ),
  ];
  const placed = charts.map((content, i) => `<g transform="translate(0 ${i * HEIGHT})">${content}</g>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT * charts.length}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
${placed.join('\n')}
</svg>
`;
}

function chart(title: string, points: readonly Point[], x: Axis, y: Axis): string {
  const atX = (value: number) => round(LEFT + x.place(value) * (WIDTH - LEFT - RIGHT));
  const atY = (value: number) => round(HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM));
  const columns = x.ticks.map((tick) => `<text x="${atX(tick)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${tick}</text>`);
  const rows = y.ticks.map(
    (tick) =>
      `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${atY(tick)}" y2="${atY(tick)}" stroke="#ddd"/>` +
      `<text x="${LEFT - 8}" y="${atY(tick) + 4}" text-anchor="end">${tick}</text>`,
  );
  const line = points.map(([px, py]) => `${atX(px)},${atY(py)}`).join(' ');
  return [
    `<text x="${LEFT}" y="22" font-size="15" font-weight="bold">${title}</text>`,
    ...rows,
    ...columns,
    `<polyline points="${line}" fill="none" stroke="#1f6feb" stroke-width="2"/>`,
    `<text x="${WIDTH - RIGHT}" y="${HEIGHT - 8}" text-anchor="end" fill="#555">${x.label}</text>`,
    `<text x="${LEFT - 8}" y="${TOP - 10}" text-anchor="end" fill="#555">${y.label}</text>`,
  ].join('\n');
}

function linear(label: string, values: readonly number[]): Axis {
  const highest = Math.max(1e-9, ...values);
  const magnitude = 10 ** Math.floor(Math.log10(highest));
  const step = [0.2, 0.5, 1, 2].map((factor) => factor * magnitude).find((size) => highest / size <= 6) ?? magnitude;
  const top = Math.ceil(highest / step) * step;
  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, i) => round(i * step));
  return { label, place: (value) => value / top, ticks };
}

/** Each nine as wide as the one before it. */
function percentiles(points: readonly Point[]): Axis {
  const nines = (value: number) => -Math.log10(1 - value / 100);
  const widest = Math.max(1, ...points.map(([x]) => nines(x)));
  const ticks = [50, 90, 99, 99.9].filter((tick) => nines(tick) <= widest);
  return { label: 'percentile', place: (value) => nines(value) / widest, ticks };
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
