// Numbers for people.

const MIB = 1 << 20;

/** Bytes as `berth` writes them: 128M, 2G. */
export function size(bytes) {
  if (bytes === 0) return "0";
  if (bytes % (MIB * 1024) === 0) return `${bytes / MIB / 1024}G`;
  if (bytes % MIB === 0) return `${bytes / MIB}M`;
  return bytes > MIB ? `${(bytes / MIB).toFixed(1)}M` : `${bytes}`;
}

/** What somebody wrote for a size; nothing if it is none. */
export function parseSize(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*$/i.exec(text);
  if (!found) return null;
  const power = { "": 0, k: 1, m: 2, g: 3, t: 4 }[found[2].toLowerCase()];
  const bytes = Number(found[1]) * 1024 ** power;
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** Seconds, to three digits. */
export function seconds(value) {
  if (value < 1e-3) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${trim(value * 1e3)} ms`;
  return value < 120 ? `${trim(value)} s` : ago(value);
}

function trim(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** A time in its largest units. */
export function ago(value) {
  const whole = Math.max(0, Math.floor(value));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} d`;
}

/** A rate of copying. */
export function rate(bytesPerSecond) {
  return `${(bytesPerSecond / 1e9).toFixed(1)} GB/s`;
}

const day = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** A moment; of today, only the time. */
export function moment(milliseconds) {
  const at = new Date(milliseconds);
  const today = at.toDateString() === new Date().toDateString();
  return (today ? time : day).format(at);
}
