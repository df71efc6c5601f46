// What the words of the counts mean, in the order in which they are shown.

const OUTCOMES = {
  graceful: "sent its FIN and returned at once; the kernel delivers the rest",
  lingered: "waited under SO_LINGER until everything was acknowledged",
  linger_timeout: "waited until the time of SO_LINGER was up; data was still unacknowledged",
  linger_interrupted: "was woken early by a signal or task work",
  linger_failed: "saw the connection die while it waited; what was queued is lost",
  linger_aborted: "reset the connection: SO_LINGER with zero time",
  unread_aborted: "reset it because received data was left unread",
  linger2_aborted: "reset it because of a negative TCP_LINGER2",
  memory_aborted: "reset it for lack of orphan quota or memory",
  connect_aborted: "gave up a connect still under way",
  already_closed: "found the connection ended before",
  not_connected: "found no connection",
  listener: "closed a listening socket",
  repaired: "was silent under TCP_REPAIR",
};

const FATES = {
  delivered: "the peer acknowledged all of it",
  peer_reset: "the peer reset the connection",
  late_data: "the peer sent data that no one could read any more",
  timed_out: "the peer acknowledged nothing, or took nothing, for too long",
  orphan_resources: "this host was out of orphan quota or memory",
  destroyed: "ended by ss -K, or with its network namespace",
  unknown: "not known: it was followed for as long as orphan-ttl says",
};

const LOST = {
  close: "closes that are in no counter",
  group: "changes counted under “other”, for want of a place for their group",
  orphan: "orphans of which it is not known what became",
  return: "closes that are in no histogram",
  event: "single closes that were not shown",
};

const isAbort = (outcome) => outcome.endsWith("_aborted");

// Names of the known, in their order, and behind them those that another version may have.
const inOrder = (words, found) => [
  ...Object.keys(words).filter((name) => name in found),
  ...Object.keys(found).filter((name) => !(name in words)),
];
