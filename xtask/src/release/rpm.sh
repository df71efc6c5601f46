# Installs the rpm package $2 in the root $1, upgrades it to $3, and removes it.
mount --types proc proc "$1/proc"
# The root has no rpm packages to depend on.
rpm="rpm --root $1 --dbpath /var/lib/rpm"

$rpm --install --nodeps "$2"
$rpm --verify --nodeps lingerd
chroot "$1" id lingerd
chroot "$1" systemctl is-enabled lingerd
chroot "$1" lingerd --version

echo '# edited' >>"$1/etc/linger/lingerd.toml"
$rpm --upgrade --nodeps "$3"
test "$($rpm --query --queryformat '%{VERSION}' lingerd)" = 99
grep --quiet '^# edited$' "$1/etc/linger/lingerd.toml"
chroot "$1" systemctl is-enabled lingerd

$rpm --erase lingerd
left=$(find "$1" -xdev -path '*linger*' -not -path '*/linger-vm*')
test "$left" = "$1/etc/linger
$1/etc/linger/lingerd.toml.rpmsave" || { echo "left: $left"; exit 1; }
