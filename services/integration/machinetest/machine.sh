# Runs one machine until standard input ends: machine.sh BASE DIR NAME NETNS_PID
# It is started in a mount namespace of its own, so that what it mounts is gone when it ends.
base=$1 dir=$2 name=$3 netns=$4

groups=
clean() {
	for group in $groups; do
		echo $$ > "${group%/*}/cgroup.procs"
		find "$group" -depth -type d -exec rmdir {} +
	done
	umount "$dir/root" 2> /dev/null || true # it may not be mounted yet
	rm -rf --one-file-system "$dir"
}
trap clean EXIT

# A control group of its own, in each hierarchy that systemd uses: machines in one group would share theirs.
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
	[ -e "$hierarchy/cgroup.procs" ] || continue
	group=$hierarchy/${dir##*/}
	mkdir "$group"
	groups="$groups $group"
	echo $$ > "$group/cgroup.procs"
done

mkdir "$dir/upper" "$dir/work" "$dir/root"
mkdir "$dir/upper/etc"
echo "$name" > "$dir/upper/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s\n' "$name" > "$dir/upper/etc/hosts" # as Debian's installer has it
mount -t overlay overlay -o "lowerdir=$base,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"

fuse=
[ ! -e /dev/fuse ] || fuse=--bind=/dev/fuse # which containers lack unless told

# Its systemd, the only child, outlives systemd-nspawn and ends it; before there is one, there is nothing to outlive.
machine= stopping=
end() {
	stopping=yes
	[ -z "$machine" ] || pkill -KILL -P "$machine" || kill -KILL "$machine" || true
}
trap end TERM
exec 3<&0
{ cat <&3 > /dev/null; kill -TERM $$; } &

# Booted again, with the same files, as often as it restarts: systemd-nspawn then ends with 133.
while [ -z "$stopping" ]; do
	systemd-nspawn --quiet --register=no --keep-unit --notify-ready=yes --kill-signal=SIGRTMIN+3 \
		--resolv-conf=off --timezone=off --link-journal=no --console=pipe $fuse \
		--network-namespace-path="/proc/$netns/ns/net" --machine="$name" --boot --directory="$dir/root" </dev/null 3<&- &
	machine=$!
	[ -z "$stopping" ] || end # it was asked for before there was anything to end
	code=0
	wait "$machine" || code=$?
	[ "$code" = 133 ] || break
done
wait "$machine" || true # again: a signal may have ended the first
machine=
# One that switched itself off is kept until it is stopped, and the groups are to be empty.
until [ -n "$stopping" ]; do wait || true; done
wait || true
