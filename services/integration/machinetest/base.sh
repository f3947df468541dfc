# Makes the file system that machines start from, unless it is there: base.sh ROOT
root=$1
[ ! -d "$root" ] || exit 0
rm -rf "$root.new"
mmdebstrap --quiet --variant=minbase \
	--include=systemd-sysv,dbus,dbus-user-session,libpam-systemd,sudo,login,passwd,iproute2,procps,ca-certificates \
	bookworm "$root.new"
# What came from the machine that runs the tests; every machine gets its own. Without a machine-id, even an
# empty one, systemd would take each boot for the first and ask questions.
rm -f "$root.new/etc/hostname" "$root.new/etc/resolv.conf"
: > "$root.new/etc/machine-id"
# A terminal that nobody will use only costs a process.
ln -s /dev/null "$root.new/etc/systemd/system/console-getty.service"
mv "$root.new" "$root"
