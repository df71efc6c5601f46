if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	if [ "$1" -ge 1 ]; then
		systemctl try-restart lingerd.service || :
	fi
fi
# cargo-generate-rpm packs files only: rpm knows nothing of their directories.
if [ "$1" -eq 0 ]; then
	for directory in /etc/linger /usr/share/doc/lingerd /usr/share/licenses/lingerd /usr/share/lingerd; do
		find "$directory" -depth -type d -exec rmdir --ignore-fail-on-non-empty {} + 2>/dev/null || :
	done
fi
