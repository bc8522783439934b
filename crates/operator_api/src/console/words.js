// Operations in words.

import { rate, seconds, size } from "./format.js";

/** What an operation is going to do. */
export function command(one) {
  const { name } = one;
  switch (one.command) {
    case "create": return `create ${one.partition.name}, ${size(one.partition.size)}`;
    case "move": return `move ${name} to ${size(one.to)}`;
    case "exchange": return `exchange ${one.a} and ${one.b}`;
    case "expand": return `expand ${name} ${one.to ? `to ${size(one.to)}` : `by ${size(one.by)}`}`;
    case "shrink": return `shrink ${name} to ${size(one.to)}`;
    case "compact": return one.free ? `make ${size(one.free)} free` : "compact main storage";
    case "pool_resume": return `resume pool ${name}`;
    case "pool_resize": return `resize pool ${name} to ${one.min}–${one.max}`;
    case "files_add": return `add space ${one.space.name}`;
    case "files_grant": return `let ${one.grant.to} reach files of ${one.space}`;
    case "files_revoke": return `keep ${one.revoke.from} from files of ${one.space}`;
    case "files_quota": return `bound space ${one.space}`;
    case "database_grant": return `let ${one.login.of} be ${one.login.role} in ${one.login.database}`;
    case "database_revoke": return `take ${one.from}'s database login`;
    case "await": return "wait for guests to start";
    case "down": return "end the host";
    default: return `${one.command} ${name}`;
  }
}

/** What it did. */
export function result(one) {
  if (one.error) {
    const { detail, left } = one.error;
    return left === undefined ? detail : `${detail}; ${left} moves were not done`;
  }
  const what = one.result;
  if (!what) return one.note || "";
  const pause = what.pause_us ? `, stopped for ${seconds(what.pause_us / 1e6)}` : "";
  switch (what.result) {
    case "created": return `at ${size(what.origin)}`;
    case "moved": {
      const copied = what.bytes ? `${size(what.bytes)} ${what.direction}, ${rate(what.copy_bytes_per_second)}` : "on the map";
      return `from ${size(what.from)}: ${copied}${pause}`;
    }
    case "exchanged": return `${size(what.bytes)} swapped${pause}`;
    case "resized": {
      const kept = what.kept ? `; the guest kept ${size(what.kept)}` : "";
      return `from ${size(what.from)} to ${size(what.to)}${pause}${kept}`;
    }
    case "compacted": return `${size(what.plan.free_size)} free at ${size(what.plan.free_origin)}`;
    default: return "done";
  }
}
