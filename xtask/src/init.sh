#!/bin/sh
# The first process of the test machine, in place of systemd: prepares the machine, does the work, reports on the second
# serial port that it began and how it ended, and powers the machine off.

report=/dev/@REPORT@
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb RUST_BACKTRACE=1

finish() {
    { echo "$1"; cat /run/summary.json 2>/dev/null; } >"$report"
    poweroff -f -f
}

give_up() {
    echo "init: $1"
    finish 100
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo up >"$report"
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup || give_up "cgroup2 cannot be mounted"
mount -t debugfs debugfs /sys/kernel/debug || give_up "debugfs cannot be mounted"
mount -t tracefs tracefs /sys/kernel/tracing || give_up "tracefs cannot be mounted"
mount -t bpf bpf /sys/fs/bpf || give_up "bpffs cannot be mounted"

for module in $(cat /etc/linger-modules); do
    modprobe "$module" || give_up "the module $module cannot be loaded"
done
ip link set lo up || give_up "the loopback interface cannot be brought up"

. /etc/linger-work
finish $?
