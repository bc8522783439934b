// What there is, kept up by events. Nothing here knows of the page.

export function empty() {
  return {
    host: { main_storage: 0, free: 0, unit: 1 << 20, version: "", ending: false, partitions: [] },
    pools: [],
    waiting: [],
    operations: new Map(),
    measured: [],
  };
}

const KEPT = 400;
const byOrigin = (a, b) => a.origin - b.origin;

function put(list, item) {
  const place = list.findIndex((one) => one.name === item.name);
  if (place < 0) list.push(item);
  else list[place] = item;
}

/** Applies an event to `state`. */
export function apply(state, name, data) {
  const { partitions } = state.host;
  const pool = (wanted) => state.pools.find((one) => one.name === wanted);
  switch (name) {
    case "everything":
      Object.assign(state, { host: data.host, pools: data.pools, waiting: data.waiting });
      state.operations = new Map(data.operations.map((one) => [one.id, one]));
      state.measured = data.measured;
      break;
    case "host":
      state.host = { ...data, partitions };
      break;
    case "partition":
      put(partitions, data);
      partitions.sort(byOrigin);
      break;
    case "partition_gone":
      state.host.partitions = partitions.filter((one) => one.name !== data.name);
      break;
    case "pool": {
      const had = pool(data.name);
      put(state.pools, { ...data, members: had ? had.members : [] });
      break;
    }
    case "member":
      if (pool(data.pool)) put(pool(data.pool).members, data.member);
      break;
    case "member_gone":
      if (pool(data.pool)) {
        pool(data.pool).members = pool(data.pool).members.filter((one) => one.name !== data.name);
      }
      break;
    case "waiting":
      state.waiting = data;
      break;
    case "operation":
      state.operations.set(data.id, data);
      while (state.operations.size > 200) {
        state.operations.delete(state.operations.keys().next().value);
      }
      break;
    case "measured":
      state.measured.push(data);
      if (state.measured.length > KEPT) state.measured.shift();
      break;
  }
}

/** Partitions that use any of a range, but for `except`. */
export function inTheWay(state, origin, size, except = []) {
  return state.host.partitions.filter(
    (one) => !except.includes(one.name) && one.origin < origin + size && origin < one.origin + one.size,
  );
}

/** The free ranges, by ascending origin. */
export function gaps(state) {
  const found = [];
  let end = 0;
  for (const one of state.host.partitions) {
    if (one.origin > end) found.push({ origin: end, size: one.origin - end });
    end = Math.max(end, one.origin + one.size);
  }
  if (end < state.host.main_storage) {
    found.push({ origin: end, size: state.host.main_storage - end });
  }
  return found;
}
