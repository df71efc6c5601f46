# An upgrade finds what is pinned in the kernel, and goes on counting; a removal leaves nothing.
if [ "$1" -eq 0 ]; then
	systemctl --no-reload disable lingerd.service || :
	if [ -d /run/systemd/system ]; then
		systemctl stop lingerd.service || :
	fi
	lingerd unload || :
	rmdir /sys/fs/bpf/lingerd 2>/dev/null || :
fi
