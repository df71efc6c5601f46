// What the words of the counts mean, in the order in which they are shown.

const OUTCOMES = {
  graceful: "sent its FIN and returned at once; the kernel delivers the rest",
  lingered: "waited under SO_LINGER until everything was acknowledged",
  linger_timeout: "waited until the SO_LINGER time was up; data was still unacknowledged",
  linger_interrupted: "was woken early by a signal or task work",
  linger_failed: "saw the connection die while it waited; what was queued is lost",
  linger_aborted: "reset the connection: SO_LINGER with a time of zero",
  unread_aborted: "reset it because received data was left unread",
  linger2_aborted: "reset it because of a negative TCP_LINGER2",
  memory_aborted: "reset it for lack of orphan quota or memory",
  connect_aborted: "abandoned a connect that was still in progress",
  already_closed: "found the connection already over",
  not_connected: "found no connection",
  listener: "closed a listening socket",
  repaired: "sent nothing, under TCP_REPAIR",
};

const FATES = {
  delivered: "the peer acknowledged all of it",
  peer_reset: "the peer reset the connection",
  late_data: "the peer sent data after the close",
  timed_out: "the peer acknowledged nothing, or kept its window closed, for too long",
  orphan_resources: "this host was out of orphan quota or memory",
  destroyed: "ended by ss -K, or with its network namespace",
  unknown: "its end was not seen within orphan-ttl, or the kernel skipped the hook of its end",
};

const LOST = {
  close: "closes that are in no counter",
  group: "changes counted under “other”, because there was no room for their group",
  orphan: "orphans that could not be followed",
  return: "closes whose time is in no histogram",
  event: "single closes that were not shown",
};

const isAbort = (outcome) => outcome.endsWith("_aborted");

// Names of the known, in their order, and behind them those that another version may have.
const inOrder = (words, found) => [
  ...Object.keys(words).filter((name) => name in found),
  ...Object.keys(found).filter((name) => !(name in words)),
];
