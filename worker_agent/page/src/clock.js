// The page's clock: microseconds since the epoch as the agent counts them.
//
// A page's timeOrigin differs from its neighbour's and jumps with the wall clock, so the agent
// calibrates performance.now() against its own monotonic clock and sets the offset here.

let offsetUs = performance.timeOrigin * 1000;

export const setClock = (us) => {
  offsetUs = us;
};

export const nowUs = () => Math.round(performance.now() * 1000 + offsetUs);
