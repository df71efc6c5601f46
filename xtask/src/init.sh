#!/bin/sh
# The first and only process of the test machine: prepares it, does the work, says how it ended
# on the second serial port, and switches the machine off.

report=/dev/ttyS1

finish() {
    { echo "$1"; cat /tmp/summary.json 2>/dev/null; } >"$report"
    poweroff -f
}

give_up() {
    echo "init: $1"
    finish 100
}

/bin/busybox mkdir -p /proc /sys /dev /run /tmp /root
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root RUST_BACKTRACE=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup || give_up "cgroup2 cannot be mounted"
mount -t tracefs tracefs /sys/kernel/tracing || give_up "tracefs cannot be mounted"
mount -t bpf bpf /sys/fs/bpf || give_up "bpffs cannot be mounted"

for module in $(cat /modules); do
    insmod "$module" || give_up "the module $module cannot be loaded"
done
ip link set lo up || give_up "the loopback interface cannot be brought up"

. /work
finish $?
