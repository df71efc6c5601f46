//! The services on simulated hosts, and how each closes its connections.

/// The results of a service's closes, which determine its series.
#[derive(Debug)]
pub(super) struct Habit {
    /// Its outcomes, most frequent first.
    pub(super) outcomes: &'static [&'static str],
    /// The fates of its orphans, most frequent first.
    pub(super) fates: &'static [&'static str],
}

const CLIENT: Habit = Habit {
    outcomes: &["graceful", "already_closed", "connect_aborted"],
    fates: &[],
};
const SERVER: Habit = Habit {
    outcomes: &["graceful", "already_closed", "listener", "unread_aborted"],
    fates: &["delivered", "late_data"],
};
const PROXY: Habit = Habit {
    outcomes: &[
        "graceful",
        "already_closed",
        "linger_aborted",
        "unread_aborted",
        "connect_aborted",
    ],
    fates: &["delivered", "peer_reset", "late_data"],
};
const DATABASE: Habit = Habit {
    outcomes: &["graceful", "already_closed", "lingered", "linger_timeout"],
    fates: &["delivered"],
};
const QUIET: Habit = Habit {
    outcomes: &["graceful", "listener"],
    fates: &[],
};

/// Services: their unit, with `@` where the instance goes, their process, and their habit.
const SERVICES: [(&str, &str, &Habit); 20] = [
    ("ssh@.service", "sshd", &QUIET),
    (
        "prometheus-node-exporter@.service",
        "node_exporter",
        &SERVER,
    ),
    ("chrony@.service", "chronyd", &QUIET),
    ("shop-api@.service", "gunicorn", &SERVER),
    ("shop-api@.service", "celery", &CLIENT),
    ("nginx@.service", "nginx", &PROXY),
    ("haproxy@.service", "haproxy", &PROXY),
    ("postgresql@.service", "postgres", &DATABASE),
    ("pgbouncer@.service", "pgbouncer", &PROXY),
    ("redis-server@.service", "redis-server", &SERVER),
    ("payments@.service", "java", &SERVER),
    ("mail-queue@.service", "master", &QUIET),
    ("mail-queue@.service", "smtp", &CLIENT),
    ("vector@.service", "vector", &CLIENT),
    ("consul@.service", "consul", &SERVER),
    ("rabbitmq@.service", "beam.smp", &SERVER),
    ("backup@.service", "restic", &CLIENT),
    ("search@.service", "java", &SERVER),
    ("gitlab-runner@.service", "gitlab-runner", &CLIENT),
    ("docker-registry@.service", "registry", &SERVER),
];

/// A group that hosts may have.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) unit: String,
    pub(super) comm: &'static str,
    pub(super) habit: &'static Habit,
}

/// Returns the group of this number, the same on every host.
pub(super) fn entry(number: usize) -> Entry {
    let (unit, comm, habit) = SERVICES[number % SERVICES.len()];
    let instance = number / SERVICES.len();
    Entry {
        unit: unit.replace('@', &format!("@{instance}")),
        comm,
        habit,
    }
}

/// Number of kinds of hosts.
const ROLES: usize = 10;

/// Returns the numbers of a host's groups: half of them are on every host, the others on hosts of its role.
pub(super) fn of_host(host: usize, groups: usize) -> Vec<usize> {
    let common = groups.div_ceil(2);
    let own = groups - common;
    let first = common + own * (host % ROLES);
    (0..common).chain(first..first + own).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn groups_are_distinct() {
        let names: BTreeSet<_> = (0..1000)
            .map(|number| (entry(number).unit, entry(number).comm))
            .collect();
        assert_eq!(names.len(), 1000);
    }

    #[test]
    fn hosts_share_half_of_their_groups_and_all_within_a_role() {
        let [first, second, again] = [0, 1, 10].map(|host| of_host(host, 7));
        assert_eq!(first, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(second, [0, 1, 2, 3, 7, 8, 9]);
        assert_eq!(again, first);
    }
}
