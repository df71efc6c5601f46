systemd-sysusers lingerd.conf || :
systemd-tmpfiles --create lingerd.conf || :
# The distribution's presets say whether services start by themselves; on Fedora and RHEL they do not.
if [ "$1" -eq 1 ]; then
	systemctl --no-reload preset lingerd.service || :
fi
